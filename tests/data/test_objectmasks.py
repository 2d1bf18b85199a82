"""One mask file an object: its layouts, its classes, and what is wrong with it."""

import cv2
import numpy as np
import pytest
import tiny_sets

from detjax.data.formats import labelmaps, objectmasks
from detjax.errors import MissingFileError, UserError


def write_mask(path, x=4, y=6, value=255, size=(48, 64)):
    """A mask of 10 x 8 pixels at (x, y)."""
    mask = np.zeros(size, np.uint8)
    mask[y : y + 8, x : x + 10] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), mask)
    return path


def read(folder, **arguments):
    return objectmasks.read_splits(splits={"train": folder}, **arguments)["train"]


# Masks of a.png, of b.png, and whether each has a folder of its own.
LAYOUTS = {
    "folders": ("images/a.png", "masks/a/{}.png", "images/b.png", "masks/b/{}.png"),
    "names": ("images/a.png", "masks/a_{}.png", "images/b.png", "masks/b-{}.png"),
    "bowl": ("7/images/7.png", "7/masks/{}.png", "8/images/8.png", "8/masks/x{}.png"),
    "deep": ("images/s/a.png", "masks/s/a_{}.png", "images/b.png", "masks/b.png"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path, layout):
    first, of_first, second, of_second = LAYOUTS[layout]
    tiny_sets.write_image(tmp_path / first)
    tiny_sets.write_image(tmp_path / second)
    for i in range(3):
        write_mask(tmp_path / of_first.format(i), x=4 + i, value=1)
    write_mask(tmp_path / of_second.format(9))
    found = read(tmp_path)
    assert not found.problems
    assert found.classes == ("object",)
    held = {r.file_name: r.truth for r in found.records}
    boxes = [a.box for a in held[first]]
    assert boxes == [(4 + i, 6, 14 + i, 14) for i in range(3)]
    assert [a.area for a in held[second]] == [80]


@pytest.mark.parametrize(
    "masks",
    [
        ("masks/cat/a/1.png", "masks/dog/a/1.png"),
        ("masks/cat/a_1.png", "masks/dog/a_1.png"),
        ("masks/a/cat/1.png", "masks/a/dog/1.png"),
    ],
)
def test_folders_of_classes(tmp_path, masks):
    tiny_sets.write_image(tmp_path / "images" / "a.png")
    for name in masks:
        write_mask(tmp_path / name)
    found = read(tmp_path)
    assert found.classes == ("cat", "dog")
    assert sorted(a.label for a in found.records[0].truth) == [0, 1]
    found = read(tmp_path, classes=("dog", "eel"))
    assert [a.label for a in found.records[0].truth] == [0]
    assert [p.reason for p in found.problems] == ["unknown class"]
    assert "'cat', which is not among dog, eel" in str(found.problems[0])


def test_the_longest_name_owns_a_mask(tmp_path):
    for name in ("a", "a_1"):
        tiny_sets.write_image(tmp_path / "images" / f"{name}.png")
    for name in ("a_1_0", "a_1_1", "a_2"):
        write_mask(tmp_path / "masks" / f"{name}.png")
    found = {r.file_name: len(r.truth) for r in read(tmp_path).records}
    assert found == {"images/a.png": 1, "images/a_1.png": 2}


def test_smooth_edges_and_one_bit(tmp_path):
    for name in "ab":
        tiny_sets.write_image(tmp_path / "images" / f"{name}.png")
    mask = np.zeros((48, 64), np.uint8)
    mask[10:20, 10:20], mask[9, 10:20], mask[20, 10:20] = 255, 100, 200
    (tmp_path / "masks").mkdir()
    cv2.imwrite(str(tmp_path / "masks" / "a_1.png"), mask)
    bits = [cv2.IMWRITE_PNG_BILEVEL, 1]
    cv2.imwrite(str(tmp_path / "masks" / "b_1.png"), mask, bits)
    first, second = read(tmp_path).records
    assert first.truth[0].box == (10, 10, 20, 21)
    assert second.truth[0].box[0] == 10


def test_what_is_wrong_is_named(tmp_path):
    for name in "abc":
        tiny_sets.write_image(tmp_path / "images" / f"{name}.png")
    write_mask(tmp_path / "masks" / "a_1.png", value=0)
    write_mask(tmp_path / "masks" / "a_2.png", size=(64, 48))
    write_mask(tmp_path / "masks" / "z_1.png")
    (tmp_path / "masks" / "b_1.png").write_bytes(b"no picture")
    found = read(tmp_path)
    reasons = {p.file: (p.reason, str(p)) for p in found.problems}
    assert "without a pixel" in reasons["masks/a_1.png"][1]
    assert "is 48 x 64, its image 64 x 48 pixels" in reasons["masks/a_2.png"][1]
    assert reasons["masks/z_1.png"][0] == "missing image"
    assert "cannot be decoded" in reasons["masks/b_1.png"][1]
    catalogue = objectmasks.catalogues(splits={"train": tmp_path})["train"]
    assert "1 images of" in catalogue.notes[0]
    with pytest.raises(UserError, match="are in no folders of classes"):
        read(tmp_path, classes=("x", "y"))
    (tmp_path / "masks" / "a_1.png").rename(tmp_path / "masks" / "q.png")
    for name in ("a_2", "b_1"):
        (tmp_path / "masks" / f"{name}.png").unlink()
    with pytest.raises(UserError, match="belongs to an image; call those"):
        read(tmp_path)


def test_folders_that_are_something_else(tmp_path):
    with pytest.raises(UserError, match="neither images/ and masks/"):
        read(tmp_path)
    (tmp_path / "masks").mkdir()
    with pytest.raises(MissingFileError, match="no images/"):
        read(tmp_path)


def test_masks_of_a_label_map_are_its_objects(tmp_path, data_dir):
    folder = data_dir / "dsb2018_nuclei" / "val"
    expected = labelmaps.read(folder).records[0]
    labels = labelmaps.load(folder / "labels" / expected.file_name)
    tiny = tmp_path / "x"
    (tiny / "images").mkdir(parents=True)
    (tiny / "masks").mkdir()
    (tiny / "images" / "x.png").write_bytes(expected.path.read_bytes())
    for value in np.unique(labels)[1:]:
        mask = np.uint8(255 * (labels == value))
        cv2.imwrite(str(tiny / "masks" / f"{value:05d}.png"), mask)
    (record,) = read(tmp_path).records
    assert [a.rle for a in record.truth] == [a.rle for a in expected.truth]
    assert [a.box for a in record.truth] == [a.box for a in expected.truth]
    before = objectmasks.digests(splits={"a": tmp_path})
    (tiny / "masks" / "00001.png").unlink()
    assert objectmasks.digests(splits={"a": tmp_path}) != before
