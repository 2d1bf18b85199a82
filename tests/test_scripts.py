"""The scripts as users start them: what they leave behind, and what they say."""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from test_tensorboard import events

ROOT = pathlib.Path(__file__).parents[1]


def environment(devices=1):
    """This process's, with as many virtual devices."""
    count = f"device_count={devices}"
    flags = re.sub(r"device_count=\d+", count, os.environ["XLA_FLAGS"])
    return {**os.environ, "XLA_FLAGS": flags}


def start(script, *arguments):
    return subprocess.run(
        [sys.executable, f"scripts/{script}.py", *map(str, arguments)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def tiny(workdir, data_dir, *overrides):
    """The flags of scripts/train.py for a run of seconds."""
    return [
        "--config=configs/quickstart.py",
        f"--workdir={workdir}",
        f"--config.data.data_dir={data_dir}",
        "--config.data.prepare.num_train=24",
        "--config.data.prepare.num_val=10",
        "--config.model.backbone.name=resnet10",
        "--config.model.backbone.width=8",
        "--config.model.fpn.features=8",
        "--config.train.steps=4",
        "--config.train.log_every=2",
        *overrides,
    ]


def train(workdir, data_dir, *overrides):
    return start("train", *tiny(workdir, data_dir, *overrides))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    done = train(folder / "work", folder / "data")
    assert done.returncode == 0, done.stderr
    return folder, done


def test_training_leaves_what_the_readme_says(run):
    workdir = run[0] / "work"
    left = {path.name for path in workdir.iterdir()}
    assert {"config.json", "metrics.jsonl", "eval.json", "checkpoints"} <= left
    assert {"results.json", "predictions.png", "curves.png"} <= left
    assert {"classes.csv", "confusion.json", "confusion.png"} <= left
    for kind in ("bbox", "segm"):
        assert {f"precision_recall_{kind}.png", f"f1_{kind}.png"} <= left
    rows = (workdir / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(row) for row in rows]
    assert [row["step"] for row in rows] == [2, 4]
    metrics = json.loads((workdir / "eval.json").read_text())
    assert {"bbox/AP", "bbox/AP50", "segm/AP", "segm/AP50"} <= {*metrics}
    config = json.loads((workdir / "config.json").read_text())
    assert config["classes"] == ["circle", "rectangle", "triangle", "star"]
    assert config["data"]["letterbox"] is False  # defaults are written too


def test_the_table_of_classes_is_printed_and_kept(run):
    lines = run[1].stdout.splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("class  "))
    assert "mask AP50" in lines[head]
    names = {line.split()[0] for line in lines[head + 1 : head + 5]}
    assert names == {"circle", "rectangle", "triangle", "star"}
    kept = (run[0] / "work" / "classes.csv").read_text().splitlines()
    assert kept[0].startswith("class,objects,box AP") and len(kept) == 5
    matrix = np.array(
        json.loads((run[0] / "work" / "confusion.json").read_text())["matrix"]
    )
    objects = [int(line.split(",")[1]) for line in kept[1:]]
    assert matrix.shape == (5, 5) and matrix[:4].sum(axis=1).tolist() == objects


def test_tensorboard_has_the_config_and_pictures(run):
    shown = [e.summary.value for e in events(run[0] / "work" / "tensorboard")]
    values = [value[0] for value in shown if value]
    tags = [value.tag for value in values]
    assert any(tag.startswith("config") for tag in tags)
    pictures = [v for v in values if v.tag.startswith("evaluation/")]
    assert len(pictures) == 6
    # Truth and prediction beside one another.
    assert all(p.image.width > 1.5 * p.image.height for p in pictures)


def test_labels_are_drawn_before_training(run, tmp_path):
    out = tmp_path / "look"
    done = start("look", "shapes", f"--data_dir={run[0] / 'data'}", f"--out={out}")
    assert done.returncode == 0, done.stderr
    assert "24 pictures" in done.stdout and "4 classes" in done.stdout
    assert {p.name for p in out.iterdir()} == {"grid.png", "classes.png", "sizes.png"}
    assert start("look").returncode == 1


def test_anchors_that_fit_are_printed_and_can_be_pasted(run, tmp_path):
    flags = tiny(tmp_path, run[0] / "data")
    flags = [flag for flag in flags if not flag.startswith("--workdir")]
    done = start("anchors", *flags, f"--out={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "priors now" in done.stdout and (tmp_path / "anchors.png").exists()
    line = next(x for x in done.stdout.splitlines() if "--config.model.priors" in x)
    again = start("anchors", *flags, *shlex.split(line), f"--out={tmp_path}")
    assert again.returncode == 0, again.stderr
    assert "no need to change" in again.stdout


def test_progress_shows_loss_speed_and_time_left(run):
    assert "step/s" in run[1].stderr or "s/step" in run[1].stderr
    assert "loss=" in run[1].stderr


def test_evaluation_again_says_the_same(run):
    """Also of a run whose images were split among more devices than there are."""
    workdir = run[0] / "work"
    before = json.loads((workdir / "eval.json").read_text())
    (workdir / "eval.json").unlink()
    written = (workdir / "config.json").read_text()
    config = json.loads(written)
    config["sharding"]["space"] = 8
    (workdir / "config.json").write_text(json.dumps(config))
    done = start("evaluate", f"--workdir={workdir}")
    (workdir / "config.json").write_text(written)
    assert done.returncode == 0, done.stderr
    after = json.loads((workdir / "eval.json").read_text())
    assert after == pytest.approx(before, abs=1e-6)


def test_another_split_and_other_settings_have_a_folder_of_their_own(run):
    workdir = run[0] / "work"
    before = (workdir / "eval.json").read_bytes()
    flags = [
        "--split=train",
        "--config.eval.max_detections=(1, 7)",
        "--config.eval.loss=True",
        "--config.model.detect.max_detections=3",
    ]
    done = start("evaluate", f"--workdir={workdir}", *flags)
    assert done.returncode == 0, done.stderr
    assert (workdir / "eval.json").read_bytes() == before
    out = workdir / "eval-train"
    metrics = json.loads((out / "eval.json").read_text())
    assert {"bbox/AR7", "val/loss", "val/box"} <= {*metrics}
    rows = json.loads((out / "results.json").read_text())
    assert max(Counter(row["image_id"] for row in rows).values()) <= 3
    changes = json.loads((out / "changes.json").read_text())
    assert changes["data"] == {"eval_split": "train"}
    assert changes["model"] == {"detect": {"max_detections": 3}}
    for flag, words in (
        ("--config.train.steps=3", "no evaluation reads the section 'train'"),
        ("--split=tset", "no split 'tset'"),
        ("--config.model.fpn.features=16", "the weights do not fit the network"),
    ):
        done = start("evaluate", f"--workdir={workdir}", flag)
        assert done.returncode == 1
        assert words in done.stderr, done.stderr


def test_methods_of_suppression_are_compared(run):
    workdir, out = run[0] / "work", run[0] / "nms"
    done = start(
        "compare_nms", f"--workdir={workdir}", f"--out={out}", "--nms=fast,soft,wbf"
    )
    assert done.returncode == 0, done.stderr
    assert "10 images" in done.stdout and (out / "nms.png").exists()
    held = json.loads((out / "nms.json").read_text())
    assert [*held["methods"]] == ["fast", "soft", "wbf"]
    assert held["methods"]["fast"] == pytest.approx(
        json.loads((workdir / "eval.json").read_text()), abs=1e-6
    )
    done = start("compare_nms", f"--workdir={workdir}", "--nms=fastest")
    assert done.returncode == 1
    assert "model.detect.nms='fastest' is not one of 'greedy'" in done.stderr


def test_results_are_cocos(run):
    """pycocotools reads results.json and finds the same box AP."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    from detjax.data import builder
    from detjax.tasks import detection
    from detjax.tasks.detection import compared

    records = builder.source("shapes", run[0] / "data", "val", detection.TASK)
    truths = compared.truth_of(records).columns
    ids = sorted(r.id for r in records)  # by rank
    truth = COCO()
    truth.dataset = {
        "images": [{"id": r.id, "height": 128, "width": 128} for r in records],
        "categories": [{"id": i} for i in (1, 2, 3, 4)],
        "annotations": [
            {
                "id": i + 1,
                "image_id": ids[truths.image_ids[i]],
                "category_id": int(truths.labels[i]) + 1,
                "bbox": truths.boxes[i].tolist(),
                "area": float(truths.areas[i]),
                "iscrowd": 0,
                "segmentation": truths.rles[i],
            }
            for i in range(len(truths.labels))
        ],
    }
    truth.createIndex()
    found = truth.loadRes(str(run[0] / "work" / "results.json"))
    judge = COCOeval(truth, found, "bbox")
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    metrics = json.loads((run[0] / "work" / "eval.json").read_text())
    assert metrics["bbox/AP"] == pytest.approx(judge.stats[0], abs=1e-9)
    assert metrics["bbox/AR100"] == pytest.approx(judge.stats[8], abs=1e-9)


def test_prediction_draws_files_and_goes_on_past_bad_ones(run, tmp_path):
    image = pytest.importorskip("PIL.Image")
    pictures = tmp_path / "in"
    pictures.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (90, 140, 3)).astype(np.uint8)
    image.fromarray(noise).save(pictures / "a.jpg")
    image.fromarray(noise[..., 0]).save(pictures / "b.png")
    (pictures / "c.png").write_bytes(b"not a picture")
    done = start(
        "predict",
        f"--workdir={run[0] / 'work'}",
        f"--out={tmp_path / 'out'}",
        "--min_score=0",
        pictures,
    )
    assert done.returncode == 1
    assert "c.png is not an image" in done.stderr
    assert "Traceback" not in done.stderr
    rows = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert {row["image_id"] for row in rows} == {1, 2}
    assert all(row["segmentation"]["size"] == [90, 140] for row in rows)
    assert {p.name for p in (tmp_path / "out").glob("*.png")} == {"a.png", "b.png"}


def test_the_last_layers_of_staged_training_are_known_before_any(tmp_path):
    done = start(
        *("transfer", "signs", tmp_path / "out", f"--init_from={tmp_path}"),
        "--backbone=mobilenet_v2",
    )
    assert done.returncode == 2
    assert "does not suit mobilenet_v2" in done.stderr
    assert "matches no parameter" in done.stderr
    assert not (tmp_path / "out").exists()
