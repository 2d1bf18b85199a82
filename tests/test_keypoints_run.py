"""Keypoints from an annotation file through training to a drawing."""

import json

import numpy as np
import pytest
from data.tiny_sets import coco_content, write_coco
from test_scripts import start

from detjax.data.records import Annotation, Record
from detjax.tasks.detection import drawing
from detjax.tasks.detection.restore import Found

CONFIG = """
from configs import keypoint_rcnn_overfit

def get_config():
    config = keypoint_rcnn_overfit.get_config()
    config.model.update(
        num_classes=2, backbone={"name": "resnet10", "width": 16, "levels": (3, 4)},
        fpn={"features": 8}, rpn={"sizes": ((12,), (24,), (48,))}, box={"hidden": 16},
        keypoint={"count": 2, "features": 8, "depth": 1, "bins": 6},
        detect={"score_threshold": 0.0, "max_detections": 5},
    )
    config.data.update(
        name="tiny", data_dir="FOLDER/data", size=(48, 64), batch_size=2,
        prepare={
            "format": "coco",
            "splits": {"train": "FOLDER/instances.json"},
            "images": "FOLDER/images",
        },
    )
    config.eval.sigmas = (0.1, 0.1)
    config.train.steps = 2
    config.train.log_every = 1
    return config
"""


@pytest.mark.slow
def test_two_steps_learn_evaluate_and_draw(tmp_path):
    content = coco_content()
    for category in content["categories"]:
        category["keypoints"] = ["left_end", "right_end"]
    for i, row in enumerate(content["annotations"]):
        x, y, w, h = row["bbox"]
        row["keypoints"] = [x + 1, y + 1, 2, x + w - 1, y + h - 1, 1 + i % 2]
        row["num_keypoints"] = 2
    write_coco(tmp_path, content)
    config = tmp_path / "config.py"
    config.write_text(CONFIG.replace("FOLDER", str(tmp_path)))
    workdir = tmp_path / "run"
    done = start("train", f"--config={config}", f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    log = [json.loads(line) for line in lines]
    assert [row["step"] for row in log] == [1, 2]
    assert all(row["keypoint"] > 0 for row in log)
    metrics = json.loads((workdir / "eval.json").read_text())
    assert 0 <= metrics["keypoints/AP"] <= 1
    rows = json.loads((workdir / "results.json").read_text())
    assert {len(row["keypoints"]) for row in rows} == {6}
    assert (workdir / "predictions.png").exists()


def test_keypoints_that_are_seen_are_drawn():
    image = np.full((480, 500, 3), 255, np.uint8)
    boxes, label = np.float32([[10, 10, 400, 400]]), np.array([0])
    points = np.float32([[[100, 200, 3.0], [300, 150, -1.0]]])
    plain = Found(boxes, np.array([0.9]), label, None)
    found = plain._replace(keypoints=points)
    without, drawn = (drawing.draw(image, one, ["a"]) for one in (plain, found))
    changed = (without != drawn).any(axis=-1)
    y, x = np.nonzero(changed)
    assert (y.min(), y.max(), x.min(), x.max()) == (197, 203, 97, 103)


def test_the_truth_has_keypoints_where_a_record_has():
    thing = Annotation(1, (0, 0, 9, 9), 0, 81.0)
    record = Record(1, "a.png", 20, 20, truth=[thing])
    assert drawing.truth(record).keypoints is None
    thing.keypoints = np.float32([[1, 2, 2]])
    np.testing.assert_array_equal(drawing.truth(record).keypoints, [[[1, 2, 2]]])
