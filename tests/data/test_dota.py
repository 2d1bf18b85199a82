"""DOTA's text files: boxes at an angle, and what is wrong with them."""

import jax
import numpy as np
import pytest
import tiny_sets

from detjax.commands import make_dataset
from detjax.data import builder, rectangles
from detjax.data.formats import dota, sniff
from detjax.data.frames import Seen
from detjax.errors import UserError
from detjax.ops import rotated
from detjax.tasks import TASKS

HEADER = "imagesource:GoogleEarth\ngsd:0.146\n"


def write(folder, rows, name="a", header=HEADER):
    """An image of 64 x 48 and its file."""
    for inner in ("images", "labelTxt"):
        (folder / inner).mkdir(parents=True, exist_ok=True)
    tiny_sets.write_image(folder / "images" / f"{name}.png")
    (folder / "labelTxt" / f"{name}.txt").write_text(header + "\n".join(rows) + "\n")
    return folder


def row(box, label="ship", difficult="0"):
    corners = rectangles.corners(np.array([box]))[0].ravel()
    return " ".join([*(f"{x:.1f}" for x in corners), label, difficult])


def read(folder, **arguments):
    return dota.read_splits(splits={"train": folder}, **arguments)["train"]


def overlap(one, other):
    return float(rotated.paired_iou(np.float32([one]), np.float32([other]))[0])


def test_boxes_at_an_angle_are_those_of_the_file(tmp_path):
    boxes = [(30, 24, 30, 12, 0.5), (40, 20, 20, 8, -1.2), (20, 30, 16, 10, 0.0)]
    folder = write(
        tmp_path / "train",
        [row(boxes[0]), row(boxes[1], "plane", "1"), row(boxes[2], "plane")],
    )
    write(tmp_path / "train", [], name="b")
    held = read(folder)
    assert held.classes == ("plane", "ship")
    assert [r.file_name for r in held.records] == ["a.png", "b.png"]
    first, second = held.records
    assert [a.label for a in first.truth] == [1, 0, 0]
    assert [a.difficult for a in first.truth] == [False, True, False]
    assert not second.truth
    for annotation, box in zip(first.truth, boxes, strict=True):
        own = rectangles.of_points(annotation.corners)
        assert overlap(own, box) > 0.98
        # And to a pixel from their masks.
        [around] = rectangles.of_codes([annotation.rle], [None], (48, 64))
        assert overlap(around, box) > 0.8


def test_they_are_learnt_and_ignored_as_they_should(tmp_path):
    """From files to a data set on disk to targets under an augmentation's matrix."""
    folder = write(tmp_path / "in" / "train", [row((30, 24, 30, 12, 0.5))])
    flags = ["dota", "--name=ships", f"--out={tmp_path}", f"--root={folder.parent}"]
    make_dataset.main([*flags, "--split", "train=train"])
    info = builder.info("ships", tmp_path)
    task = TASKS["detection"]
    [record] = builder.source("ships", tmp_path, "train", task)
    targets = task.targets(info, mask_stride=None, oriented=True)
    objects, _ = targets.empty(1, (96, 128))
    matrix = np.diag([2.0, 2.0, 1.0])
    seen = Seen(targets.read(record), matrix, np.array([0, 0, 128, 96]))
    one = jax.tree.map(lambda x: x[0], objects)
    assert targets.fill(one, [seen], (96, 128))["objects"] == 1
    assert overlap(objects.oriented[0, 0], (60, 48, 60, 24, 0.5)) > 0.98
    assert not objects.oriented[0, 1:].any()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1 2 3 4 5 6 7 ship 0", "has 9 words|eight numbers"),
        ("1 2 3 4 5 6 7 x ship 0", "does not begin with eight numbers"),
        ("1 2 3 4 5 6 7 inf ship 0", "not finite"),
        ("1 1 9 1 9 9 1 9 ship 7", "difficult=7"),
        ("1 1 9 1 9 9 1 9 ship", None),
        ("70 50 90 50 90 60 70 60 ship 0", "without a pixel"),
    ],
)
def test_rows_that_do_not_fit_are_named_with_their_line(tmp_path, text, said):
    held = read(write(tmp_path / "a", [row((30, 24, 30, 12, 0.5)), text]))
    if said is None:
        assert not held.problems
        assert len(held.records[0].truth) == 2
        return
    [problem] = held.problems
    assert problem.subject == "line 4 of image 1"
    assert any(part in problem.detail for part in said.split("|"))
    assert len(held.records[0].truth) == 1


def test_unknown_classes_and_folders_are_said_so(tmp_path):
    folder = write(tmp_path / "a", [row((30, 24, 30, 12, 0.5))])
    [problem] = read(folder, classes=["plane"]).problems
    assert "ship" in problem.detail
    (tmp_path / "b").mkdir()
    with pytest.raises(UserError, match="has no folder images/"):
        read(tmp_path / "b")
    (tmp_path / "c" / "images").mkdir(parents=True)
    with pytest.raises(UserError, match="has no folder labelTxt/"):
        read(tmp_path / "c")
    assert sniff.guess(folder).format == "dota"


def test_pictures_without_a_file_are_noted(tmp_path):
    folder = write(tmp_path / "a", [row((30, 24, 30, 12, 0.5))])
    tiny_sets.write_image(folder / "images" / "other.png")
    found = dota.catalogues(splits={"train": folder})["train"]
    assert "1 pictures" in found.notes[0] and "other.png" in found.notes[0]
    assert len(found.entries) == 1
