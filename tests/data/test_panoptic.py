"""COCO's panoptic files, and objects, as label maps."""

import json
import os
import pathlib

import cv2
import numpy as np
import pytest
import tiny_sets

from detjax.data import label_maps
from detjax.data.formats import instances, panoptic
from detjax.errors import UserError

ROOT = pathlib.Path(os.environ.get("DETJAX_DATA", "../shared/data"))


def written(folder, change=lambda content: None):
    """A panoptic file of one image: two segments of two categories, and none."""
    ids = np.zeros((48, 64), np.int64)
    ids[:20], ids[20:40, :30], ids[20:40, 30:] = 70_000, 300, 5
    tiny_sets.write_image(folder / "images" / "a.png")
    colours = np.stack([ids >> 16, ids >> 8 & 255, ids & 255], 2).astype(np.uint8)
    (folder / "panoptic").mkdir(parents=True)
    # OpenCV writes blue first, and ids have red first.
    assert cv2.imwrite(str(folder / "panoptic" / "a.png"), colours)
    content = {
        "images": [{"id": 9, "file_name": "a.png", "height": 48, "width": 64}],
        "annotations": [
            {
                "image_id": 9,
                "file_name": "a.png",
                "segments_info": [
                    {"id": 70_000, "category_id": 7},
                    {"id": 300, "category_id": 2},
                    {"id": 5, "category_id": 7, "iscrowd": 1},
                ],
            }
        ],
        "categories": [
            {"id": 7, "name": "sky", "supercategory": "stuff"},
            {"id": 2, "name": "cat", "supercategory": "animal"},
        ],
    }
    change(content)
    (folder / "p.json").write_text(json.dumps(content))
    return ids


def read(folder, **arguments):
    found = panoptic.read_splits(root=folder, splits={"train": "p.json"}, **arguments)
    return found["train"]


def test_segments_become_their_categories(tmp_path):
    ids = written(tmp_path)
    found = read(tmp_path)
    assert found.classes == ("cat", "sky")
    labels, valid = label_maps.decode(found.records[0].truth, (48, 64))
    np.testing.assert_array_equal(valid, ids > 0)
    np.testing.assert_array_equal(labels, np.isin(ids, (70_000, 5)))
    merged = read(tmp_path, merge="supercategories")
    assert merged.classes == ("animal", "stuff")
    chosen = read(tmp_path, classes=("sky",))
    labels, valid = label_maps.decode(chosen.records[0].truth, (48, 64))
    np.testing.assert_array_equal(valid, np.isin(ids, (70_000, 5)))


def lacks_a_segment(content):
    content["annotations"][0]["segments_info"].pop()


def has_another_category(content):
    content["annotations"][0]["segments_info"][0]["category_id"] = 77


def has_no_list(content):
    content["annotations"][0]["segments_info"] = 3


def is_of_another_image(content):
    content["annotations"][0]["image_id"] = 8


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lacks_a_segment, "segment that is not listed"),
        (has_another_category, "unknown category"),
        (has_no_list, "malformed segments"),
        (is_of_another_image, "unknown image"),
    ],
)
def test_problems_are_named(tmp_path, change, reason):
    written(tmp_path, change)
    found = read(tmp_path)
    assert not found.records
    assert [p.reason for p in found.problems] == [reason]


def test_folders_that_are_not_found_are_asked_for(tmp_path):
    written(tmp_path)
    (tmp_path / "panoptic").rename(tmp_path / "maps")
    with pytest.raises(UserError, match="name it with --labels"):
        read(tmp_path)
    assert len(read(tmp_path, labels="maps").records) == 1


def test_real_photographs_are_labelled_nearly_everywhere():
    folder = ROOT / "coco_cc"
    if not folder.is_dir():
        pytest.skip(f"no {folder}; set DETJAX_DATA")
    found = panoptic.read_splits(
        splits={"train": folder / "annotations" / "panoptic_train2017.json"},
        labels=folder / "panoptic",
        merge="supercategories",
    )["train"]
    assert len(found.records) == 26
    assert len(found.classes) == 27
    assert not found.problems
    shares = [
        label_maps.decode(r.truth, (r.height, r.width))[1].mean() for r in found.records
    ]
    assert np.mean(shares) > 0.85


def test_objects_become_label_maps(tmp_path):
    path = tiny_sets.write_coco(tmp_path)
    given = {"format": "coco", "splits": {"train": path}, "images": tmp_path / "images"}
    for source in (given, {k: v for k, v in given.items() if k != "format"}):
        found = instances.read_splits(source=source)["train"]
        assert found.classes == ("background", "cat", "dog")
        first, second, third = (
            label_maps.decode(r.truth, (r.height, r.width)) for r in found.records
        )
        # A polygon of class cat, and a crowd of dogs, which is ignored.
        wanted = np.zeros((48, 64), int)
        wanted[10:30, 10:30] = 1
        np.testing.assert_array_equal(first[0], wanted)
        assert not first[1][:, 40:50].any()
        assert first[1][:, :40].all()
        # An object without a mask is ignored where its box is.
        assert not second[1][6:36, 6:26].any()
        assert second[1].sum() > 2000
        assert third[1].all()
        assert not third[0].any()


def test_small_objects_lie_upon_large_ones(tmp_path):
    path = tmp_path / "labels"
    maps = np.zeros((48, 64), np.uint8)
    maps[5:40, 5:50] = 1
    maps[10:15, 10:15] = 2
    tiny_sets.write_image(tmp_path / "images" / "a.png")
    path.mkdir()
    assert cv2.imwrite(str(path / "a.png"), maps)
    found = instances.read_splits(
        source={"splits": {"train": tmp_path}, "classes": ("cell",)}
    )["train"]
    labels, valid = label_maps.decode(found.records[0].truth, (48, 64))
    np.testing.assert_array_equal(labels, maps > 0)
    assert valid.all()


def test_sources_that_are_none_are_told(tmp_path):
    with pytest.raises(UserError, match="is no format of objects"):
        instances.catalogues(source={"format": "folders"})
    with pytest.raises(UserError, match="looks like no format of objects"):
        instances.catalogues(source={"root": tmp_path})
    with pytest.raises(UserError, match=r"source\.size"):
        instances.catalogues(source={"format": "coco", "size": 3})
    path = tiny_sets.write_coco(tmp_path)
    text = path.read_text().replace('"cat"', '"background"')
    path.write_text(text)
    with pytest.raises(UserError, match="a class is called 'background'"):
        instances.catalogues(
            source={"format": "coco", "splits": {"train": path}, "root": tmp_path}
        )
