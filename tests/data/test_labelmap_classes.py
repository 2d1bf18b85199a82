"""Label maps of several classes, and maps that do not number their objects."""

import cv2
import numpy as np
import pytest
import tiny_sets

from detjax.data.formats import labelmaps
from detjax.errors import UserError


def blocks(*values):
    """A map of 48 x 64 with squares of 6 pixels, apart, of these values."""
    made = np.zeros((48, 64), np.uint8)
    for i, value in enumerate(values):
        made[4:10, 2 + 10 * i : 8 + 10 * i] = value
    return made


def write(folder, maps, below="labels"):
    for name, values in maps.items():
        tiny_sets.write_image(folder / "images" / f"{name}.png")
        path = folder / below / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), values)
    return folder


def truth(found):
    return [(a.label, a.box[0]) for r in found.records for a in r.truth]


def read(folder, **arguments):
    return labelmaps.read_splits(splits={"train": folder}, **arguments)["train"]


@pytest.mark.parametrize(
    "maps",
    [{"a": blocks(255, 255)}, {"a": blocks(1), "b": blocks(1, 1)}, {"a": blocks(255)}],
)
def test_maps_of_one_value_are_asked_about(tmp_path, maps):
    write(tmp_path, maps)
    with pytest.raises(UserError, match="do not number their objects") as caught:
        read(tmp_path)
    assert "--objects=components" in str(caught.value)
    assert "--objects=values" in str(caught.value)
    parts = sum(len(r.truth) for r in read(tmp_path, objects="components").records)
    whole = sum(len(r.truth) for r in read(tmp_path, objects="values").records)
    assert parts == sum(int((m[5] > 0).sum()) // 6 for m in maps.values())
    assert whole == len(maps)


def test_maps_that_number_their_objects_are_not(tmp_path):
    assert (
        len(truth(read(write(tmp_path / "1", {"a": blocks(1), "b": blocks(1, 2)}))))
        == 3
    )
    assert (
        len(truth(read(write(tmp_path / "2", {"a": blocks(7), "b": blocks(0)})))) == 1
    )


def test_corners_connect(tmp_path):
    labels = np.zeros((48, 64), np.uint8)
    labels[4:8, 4:8] = labels[8:12, 8:12] = labels[30:33, 30:33] = 255
    found = read(write(tmp_path, {"a": labels}), objects="components")
    assert [a.box for a in found.records[0].truth] == [(4, 4, 12, 12), (30, 30, 33, 33)]


def test_a_folder_of_maps_a_class(tmp_path):
    write(tmp_path, {"a": blocks(1, 2)}, "labels/dog")
    write(tmp_path, {"a": blocks(0, 0, 4), "b": blocks(1)}, "labels/cat")
    found = read(tmp_path)
    assert found.classes == ("cat", "dog")
    assert truth(found) == [(0, 22), (1, 2), (1, 12), (0, 2)]
    assert truth(read(tmp_path, classes=("dog", "cat")))[0] == (1, 22)
    some = read(tmp_path, classes=("dog",))
    assert {p.reason for p in some.problems} == {"unknown class"}


def test_a_map_of_classes_beside(tmp_path):
    write(tmp_path, {"a": blocks(1, 2, 3)})
    kinds = blocks(2, 1, 1)
    kinds[4:6, 2:8] = 1  # a third of the first object's pixels
    write(tmp_path, {"a": kinds}, "classes")
    found = read(tmp_path, classes=("x", "y"))
    assert not found.problems
    assert truth(found) == [(1, 2), (0, 12), (0, 22)]
    before = labelmaps.digests(splits={"a": tmp_path})
    write(tmp_path, {"a": blocks(2, 1, 0)}, "classes")
    assert labelmaps.digests(splits={"a": tmp_path}) != before
    found = read(tmp_path, classes=("x", "y"))
    assert [p.reason for p in found.problems] == ["no class"]
    assert "at [22, 4, 28, 10] has no class" in str(found.problems[0])
    found = read(tmp_path, classes=("x",))
    assert "has a class map with the value 2" in str(found.problems[0])
    (tmp_path / "classes" / "a.png").unlink()
    assert read(tmp_path, classes=("x", "y")).problems[0].reason == "missing class map"


def test_values_may_be_classes(tmp_path):
    write(tmp_path, {"a": blocks(2, 1, 2)})
    with pytest.raises(UserError, match="one class"):
        read(tmp_path, classes=("x", "y"))
    found = read(tmp_path, classes=("x", "y"), objects="components")
    assert truth(found) == [(0, 12), (1, 2), (1, 22)]
    write(tmp_path, {"a": blocks(3)})
    found = read(tmp_path, classes=("x", "y"), objects="components")
    assert "has the value 3, and the classes are numbered 1 to 2" in str(
        found.problems[0]
    )


def test_the_choice_is_part_of_the_digest(tmp_path):
    write(tmp_path, {"a": blocks(1, 2)})
    splits = {"train": tmp_path}
    plain = labelmaps.digests(splits=splits)
    assert plain == labelmaps.digests(splits=splits, objects="values")
    assert plain != labelmaps.digests(splits=splits, objects="components")
