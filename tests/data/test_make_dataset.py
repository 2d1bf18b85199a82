"""The script: flags in, exit status and one sentence out."""

import pathlib
import subprocess
import sys

import numpy as np
import tiny_sets

from detjax.data import builder

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
    assert done.stderr.startswith(
        "error: bad annotations:\n  annotation 2 of image 1 ("
    )
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
    (record,) = builder.source("n", tmp_path, "train")
    np.testing.assert_allclose(record.annotations[0].box, (4, 3, 8, 9), atol=1e-3)


def test_missing_flags_and_files(tmp_path):
    assert run("voc", "--name=v").returncode == 2
    flags = ["voc", "--name=v", f"--out={tmp_path}", f"--root={tmp_path / 'nowhere'}"]
    done = run(*flags)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "nowhere" in done.stderr
