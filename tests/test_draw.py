"""Comparisons under any name, within bounds, and files that say what they are."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
from tasks.test_detection_drawing import found, picture

from detjax import draw
from detjax.data.records import Annotation, Record
from detjax.tasks import detection

NAMES = ["price_$5_$x^^.png", "a\nb\x07.png", "\udcff.png", "日本.png", "x" * 300]


@pytest.mark.parametrize("name", NAMES)
def test_names_do_not_break_the_figure(name, tmp_path):
    encoded = cv2.imencode(".png", picture(40, 60))[1].tobytes()
    thing = Annotation(1, (5, 5, 30, 30), 0, 625.0)
    record = Record(1, name, 40, 60, image=encoded, truth=[thing])
    path = tmp_path / "predictions.png"
    draw.comparison(path, [record], [found(40, 60)], [name, "b"], detection.TASK)
    assert cv2.imread(str(path)).shape[1] > 2 * draw.PANEL_SIDE


def test_a_broken_picture_is_told_of_and_the_rest_is_drawn(tmp_path, capsys):
    encoded = cv2.imencode(".png", picture(40, 60))[1].tobytes()
    records = [
        Record(1, "whole.png", 40, 60, image=encoded),
        Record(2, "broken.png", 40, 60, image=b"no picture"),
        Record(3, "strip.png", 9000, 1, image=encoded),
    ]
    path = tmp_path / "predictions.png"
    draw.comparison(path, records, [found(40, 60)] * 3, ["a"], detection.TASK)
    assert cv2.imread(str(path)).shape[0] < 1200
    said = capsys.readouterr().err
    assert "broken.png is not drawn" in said
    assert "whole.png" not in said


CELLS = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (7 << 30, 7 << 30))
import cv2, numpy as np
from detjax import draw
from detjax.data import rle
from detjax.data.records import Annotation, Record
from detjax.tasks import detection

labels = np.zeros((1200, 1200), np.int32)
for i in range(3025):
    y, x = i // 55 * 21, i % 55 * 21
    labels[y : y + 18, x : x + 18] = i + 1
things = [
    Annotation(i, one.box, 0, one.area, rle=one.rle)
    for i, one in rle.instances(labels).items()
]
image = cv2.imencode(".png", np.zeros((1200, 1200, 3), np.uint8))[1].tobytes()
record = Record(1, "cells.png", 1200, 1200, image=image, truth=things)
task = detection.TASK
draw.comparison("{}", [record], [task.truth(record)], ["cell"], task)
# ru_maxrss would be that of the process that started this one
status = open("/proc/self/status").read()
print(status.split("VmHWM:")[1].split()[0])
"""


def test_thousands_of_cells_are_drawn_in_7_gb(tmp_path):
    path = tmp_path / "predictions.png"
    done = subprocess.run(
        [sys.executable, "-c", CELLS.format(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 3 << 20  # kilobytes
    assert "not drawn" not in done.stderr
    assert (cv2.imread(str(path))[100:300, 200:300] != 255).any()


def test_drawings_say_so_and_other_pictures_do_not(tmp_path):
    draw.save(tmp_path / "a.png", np.arange(60, dtype=np.uint8).reshape(4, 5, 3))
    back = cv2.imread(str(tmp_path / "a.png"))[..., ::-1]
    assert back.ravel().tolist() == list(range(60))
    cv2.imwrite(str(tmp_path / "b.png"), back)
    assert draw.is_drawing(tmp_path / "a.png")
    assert not draw.is_drawing(tmp_path / "b.png")
    assert not draw.is_drawing(tmp_path / "absent.png")
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["a.png", "b.png"]
    with pytest.raises(OSError, match=r"a\.xyz cannot be written"):
        draw.save(tmp_path / "a.xyz", back)
