"""The script: flags in, exit status and one sentence out."""

import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tiny_sets

from detjax.commands import make_dataset
from detjax.data import builder
from detjax.tasks import detection

ROOT = pathlib.Path(__file__).parents[2]


def run(*flags):
    command = [sys.executable, "scripts/make_dataset.py", *map(str, flags)]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_coco(tmp_path):
    path = tiny_sets.write_coco(tmp_path)
    flags = ["coco", "--name=c", f"--out={tmp_path}", "--split", f"train={path}"]
    flags += ["--split", f"val={path}", "--images", f"train={tmp_path / 'images'}"]
    flags += ["--images", f"val={tmp_path / 'images'}", "--classes=dog, cat"]
    done = run(*flags)
    assert (done.returncode, done.stderr) == (0, "")
    assert "images without objects" in done.stdout
    info = builder.info("c", tmp_path)
    assert info.splits == {"train": 3, "val": 3}
    assert info.classes == ("dog", "cat")


def test_voc_fails_with_a_sentence_then_skips(tmp_path):
    things = tiny_sets.voc_thing("a", 1, 1, 9, 9) + tiny_sets.voc_thing("a", 5, 5, 5, 9)
    root = tiny_sets.write_voc(tmp_path / "voc", {"x": tiny_sets.voc_xml(things)})
    flags = ["voc", "--name=v", f"--out={tmp_path}", f"--root={root}"]
    flags += ["--split", "train", "val=*"]
    done = run(*flags)
    assert done.returncode == 1
    assert done.stderr.startswith("error: bad annotations:\n  object 2 of image 1 (")
    assert "Traceback" not in done.stderr
    assert "Traceback" in run(*flags, "--debug").stderr
    done = run(*flags, "--on-error=skip")
    assert (done.returncode, done.stderr) == (0, "")
    assert "v-problems.txt" in done.stdout
    assert builder.info("v", tmp_path).splits == {"train": 1, "val": 1}


def test_labelmaps(tmp_path):
    labels = np.zeros((48, 64), np.uint8)
    labels[3:9, 4:8] = 5
    folder = tiny_sets.write_labelmaps(tmp_path / "maps", {"a": labels})
    flags = ["labelmaps", "--name=n", f"--out={tmp_path}", "--classes=nucleus"]
    done = run(*flags, "--split", f"train={folder}")
    assert (done.returncode, done.stderr) == (0, "")
    (record,) = builder.source("n", tmp_path, "train", detection.TASK)
    np.testing.assert_allclose(record.truth[0].box, (4, 3, 8, 9), atol=1e-3)


def test_missing_flags_and_files(tmp_path):
    assert run("voc", "--name=v").returncode == 2
    flags = ["voc", "--name=v", f"--out={tmp_path}", f"--root={tmp_path / 'nowhere'}"]
    done = run(*flags)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "nowhere" in done.stderr


def train2017(folder):
    """What COCO's train2017 has: boxes of no width, polygons of no pixel; and a val."""
    content = tiny_sets.coco_content()
    content["annotations"][2]["bbox"][2] = 0
    flat = [[5, 5, 5.1, 5, 5.1, 5.1]]
    content["annotations"].append(
        tiny_sets.thing(20, 43, 3, [5, 5, 0.1, 0.1], segmentation=flat)
    )
    for split, held in (("train", content), ("val", tiny_sets.coco_content())):
        path = tiny_sets.write_coco(folder / split, held)
        (folder / split / "images").rename(folder / f"{split}2017")
        (folder / "annotations").mkdir(exist_ok=True)
        path.rename(folder / "annotations" / f"instances_{split}2017.json")


@pytest.mark.parametrize("config", ["mask_rcnn_r50_coco", "yolact_r101_coco"])
def test_the_command_of_a_config_makes_coco(tmp_path, config):
    """As it stands there; it has to skip, since train2017 has such boxes."""
    text = (ROOT / "configs" / f"{config}.py").read_text()
    command = text[
        text.index("python scripts/make") : text.index("    python scripts/im")
    ]
    flags = shlex.split(command.replace("\\\\\n", " "))
    train2017(tmp_path)
    whole = [sys.executable, str(ROOT / "scripts" / "make_dataset.py"), *flags[2:]]
    for asked, status in (
        ([*whole, "--on-error=fail"], 1),
        (whole, 0),
    ):
        done = subprocess.run(
            asked,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stderr
        if status:
            assert "zero width" in done.stderr
            assert "a mask without a pixel" in done.stderr
            assert "drop such with --on-error=skip" in done.stderr
    info = builder.info("coco", tmp_path / "datasets")
    assert info.splits == {"train": 3, "val": 3}
    assert info.made_from["problems"] == 2


def test_a_split_named_twice_and_files_outside(tmp_path):
    path = tiny_sets.write_coco(tmp_path / "in")
    flags = ["coco", "--name=c", f"--out={tmp_path}", f"--images={tmp_path / 'in'}"]
    done = run(*flags, f"--split=train={path}", "--split=train=other.json")
    assert done.returncode == 1
    assert "'train' is named twice" in done.stderr
    content = tiny_sets.coco_content()
    for row in content["images"]:
        row["file_name"] = f"../{row['file_name']}"
    path = tiny_sets.write_coco(tmp_path / "in", content)
    (tmp_path / "in" / "images" / "deep").mkdir()
    flags[-1] += "/images/deep"
    done = run(*flags, f"--split=train={path}")
    assert "allow it with --allow-outside" in done.stderr
    assert run(*flags, f"--split=train={path}", "--allow-outside").returncode == 0


def test_a_folder_with_an_equals_sign(tmp_path):
    path = tiny_sets.write_coco(tmp_path / "a=b")
    flags = ["coco", "--name=c", f"--out={tmp_path}", f"--split=train={path}"]
    assert run(*flags, f"--images={tmp_path / 'a=b' / 'images'}").returncode == 0


def test_synthetic_files(tmp_path):
    command = [sys.executable, "scripts/synthetic_coco.py", str(tmp_path)]
    command += ["--images=60", "--objects=3", "--ids=14-digit", "--faults"]
    subprocess.run(command, cwd=ROOT, check=True)
    flags = ["coco", "--name=c", f"--out={tmp_path}", f"--images={tmp_path}/images"]
    flags += [f"--split={split}={tmp_path}/{split}.json" for split in ("train", "val")]
    done = run(*flags, "--on-error=skip")
    assert (done.returncode, done.stderr) == (0, "")
    assert "zero area 2" in " ".join(done.stdout.split())
    assert "empty mask" in done.stdout
    info = builder.info("c", tmp_path)
    assert info.splits == {"train": 57, "val": 3}
    ids = builder.listing("c", tmp_path, "val", detection.TASK).ids
    assert min(ids) >= 10**13


def test_a_pool_is_divided_and_comes_back_as_coco(tmp_path):
    path = tiny_sets.write_coco(tmp_path / "in")
    flags = ["coco", "--name=c", f"--out={tmp_path}", "--split", path]
    done = run(*flags, "--split-by=train:.67,val:.33")
    assert (done.returncode, done.stderr) == (0, "")
    assert builder.info("c", tmp_path).splits == {"train": 2, "val": 1}
    flags = ["export", "--name=c", f"--data-dir={tmp_path}", "--to=coco"]
    done = run(*flags, f"--out={tmp_path / 'back'}")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"wrote {tmp_path / 'back'} (train 2, val 1)\n"
    done = run(*flags, f"--out={tmp_path / 'back'}")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


def test_help_has_every_format_and_flag():
    said = run("--help").stdout
    for name in make_dataset.FORMATS:
        assert f" {name} --name=mine" in said
    assert "--split-by" in run("yolo", "--help").stdout


def test_an_interrupted_run_says_so(tmp_path):
    command = [sys.executable, "scripts/synthetic_coco.py", str(tmp_path)]
    subprocess.run([*command, "--images=1100", "--objects=1"], cwd=ROOT, check=True)
    flags = ["coco", "--name=c", f"--out={tmp_path}", f"--images={tmp_path}/images"]
    flags += [f"--split=train={tmp_path}/train.json"]
    with subprocess.Popen(
        tiny_sets.starting("scripts/make_dataset.py", *flags),
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    ) as one:
        until = time.monotonic() + 60
        while not list(tmp_path.glob("c/incomplete.*")) and time.monotonic() < until:
            time.sleep(0.01)
        one.send_signal(signal.SIGINT)
        _, err = one.communicate(timeout=60)
    assert (one.returncode, err) == (130, "error: interrupted\n")
    assert not (tmp_path / "c").exists()
