"""Ids and sizes beside the records: as they were given, whatever happens to them."""

import numpy as np
import pytest
import tiny_sets

from detjax.data import builder, listings
from detjax.data.formats import shapes
from detjax.data.prepare import prepare
from detjax.tasks import detection


def made(folder, ids):
    """A data set of three images of these ids, which annotations name as text."""
    content = tiny_sets.coco_content()
    for row, number in zip(content["images"], ids, strict=True):
        row["id"] = number
    for row, place in zip(content["annotations"], (0, 0, 1), strict=True):
        row["image_id"] = str(ids[place])
    path = tiny_sets.write_coco(folder, content)
    arguments = {"splits": {"train": path}, "images": folder / "images"}
    prepare("c", folder, detection.TASK, format="coco", **arguments)


@pytest.mark.parametrize(
    ("ids", "kept"),
    [
        ([20240131123456, -5, 7], [20240131123456, -5, 7]),
        (["a1", "42", "0042"], ["a1", "42", "0042"]),
        (["ü", 42, 43.0], ["ü", "42", "43"]),
        ([2**63 - 1, -(2**63), 0], [2**63 - 1, -(2**63), 0]),
    ],
)
def test_ids_are_kept(tmp_path, ids, kept):
    made(tmp_path, ids)
    found = list(builder.source("c", tmp_path, "train", detection.TASK))
    assert [r.id for r in found] == kept
    assert [len(r.truth) for r in found] == [2, 1, 0]
    assert list(builder.listing("c", tmp_path, "train", detection.TASK).ids) == kept
    assert builder.info("c", tmp_path).text_ids == isinstance(kept[0], str)


def test_ids_beyond_64_bits_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"1{20}, beyond 64 bits; write it as a strin"):
        made(tmp_path, [int("1" * 20), 2, 3])


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    records = shapes.records("train", 10, 32)
    builder.write(
        {"train": builder.Dataset("train", shapes.CLASSES, records)},
        "s",
        folder,
        detection.TASK,
    )
    return folder


def test_parts(written):
    found = builder.listing("s", written, "train[:20%]+train[8:]", detection.TASK)
    assert list(found.ids) == [1, 2, 9, 10]
    assert found.sizes.dtype == np.int32
    assert found.sizes.tolist() == [[32, 32]] * 4
    np.testing.assert_array_equal(
        builder.image_sizes("s", written, "train", detection.TASK), [[32, 32]] * 10
    )
    for part in ("train[:x%]", "train[", "train[:10%", "test", "train+test"):
        with pytest.raises(ValueError, match=r"no part of a split|no split 'test'"):
            builder.listing("s", written, part, detection.TASK)


@pytest.mark.parametrize("damage", ["absent", "half", "other", "pickle"])
def test_a_listing_that_is_not_there_is_read_once(written, capsys, damage):
    path = listings.path_of(builder.directory("s", written), "train")
    before = path.read_bytes()
    if damage == "absent":
        path.unlink()
    elif damage == "half":
        path.write_bytes(before[: len(before) // 2])
    elif damage == "pickle":
        np.savez(path, sizes=np.array([{}], object), ids=np.zeros(10))
    else:
        np.savez(path, sizes=np.zeros((3, 2), np.int32), ids=np.zeros(3, np.int64))
    for told in (1, 0):
        assert list(builder.listing("s", written, "train", detection.TASK).ids) == [
            *range(1, 11)
        ]
        err = capsys.readouterr().err
        assert err.count("10 records of split 'train' are read for them, once") == told
    assert path.read_bytes() == before


def test_records_without_images(written):
    with_, without = (
        builder.source("s", written, "train", detection.TASK, images=images)[3]
        for images in (True, False)
    )
    assert with_.image.startswith(b"\x89PNG")
    assert without.image is None
    assert without.truth == with_.truth
