"""What a run shows after an evaluation: curves, pictures, and what is passed over."""

from types import SimpleNamespace

import cv2
import numpy as np
from test_tensorboard import events

from detjax import log, progress
from detjax.data.records import Annotation, Record, Unreadable
from detjax.tasks import TASKS
from detjax.tasks.detection.restore import Found

TASK = TASKS["detection"]


class Pictures(list):
    """Records, of which the last cannot be read."""

    def __getitem__(self, place):
        if place == len(self) - 1:
            raise Unreadable("it is broken")
        return super().__getitem__(place)


def made(tmp_path, count=4):
    data = cv2.imencode(".png", np.full((48, 64, 3), 80, np.uint8))[1].tobytes()
    thing = Annotation(1, (5.0, 6.0, 25.0, 36.0), 0, 600.0)
    held = Pictures(
        Record(i, f"{i}.png", 48, 64, image=data, truth=[thing]) for i in range(count)
    )
    named = SimpleNamespace(pictures=held, info=SimpleNamespace(classes=("a", "b")))
    return progress.Progress(tmp_path, named, TASK)


def found(score):
    return Found(np.float32([[4, 4, 30, 30]]), np.array([score]), np.array([1]), None)


def test_an_evaluation_leaves_curves_and_pictures(tmp_path):
    shows = made(tmp_path)
    assert sorted(shows.kept) == [0, 1, 2, 3]
    # Another process has seen the third; the last cannot be read.
    shows.kept.update({0: found(0.9), 1: found(0.1), 3: found(0.9)})
    with log.Log(tmp_path, float, 0, 9, {}, progress=False) as lines:
        lines.put({"step": 5, "bbox/AP": 0.5})
        shows.evaluated(lines, 5)
    shows.finished(5)  # nothing new
    shows.finished(6)
    assert (tmp_path / "curves.png").exists()
    shown = [e for e in events(tmp_path / "tensorboard") if e.summary.value]
    tags = [(e.step, e.summary.value[0].tag) for e in shown]
    pictures = [tag for tag in tags if tag[1].startswith("evaluation/")]
    assert pictures == [
        *((5, "evaluation/0"), (5, "evaluation/1")),
        *((6, "evaluation/0"), (6, "evaluation/1")),
    ]
    # The second has no detection that is sure enough: less colour in its right half.
    halves = []
    for event in (e for e in shown if e.summary.value[0].image.width and e.step == 5):
        data = event.summary.value[0].image.encoded_image_string
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        right = image[:, image.shape[1] // 2 :].astype(int)
        halves.append((np.ptp(right, axis=2) > 60).mean())
    assert halves[0] > 0.01 > halves[1]


def test_rows_are_read_back(tmp_path):
    with log.Log(tmp_path, float, 0, 9, {}, progress=False) as lines:
        lines.put({"step": 5, "loss": 0.5})
    assert progress.read_rows(tmp_path) == [{"step": 5, "loss": 0.5}]
