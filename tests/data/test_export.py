"""Data sets as files again: what was read is what is written."""

import json

import cv2
import numpy as np
import pytest
import tiny_sets

from detjax.data import builder, export
from detjax.data.formats import coco
from detjax.data.prepare import prepare
from detjax.data.records import Annotation, Dataset, Record
from detjax.errors import UserError
from detjax.tasks import TASKS, classification, detection


def quietly(*_):
    pass


def written(tmp_path, path, images, name="c"):
    """The splits train and val of a COCO file, prepared, exported and read again."""
    splits = {"train": path, "val": path}
    section = {"splits": splits, "images": images, "on_error": "skip"}
    prepare(name, tmp_path, detection.TASK, format="coco", **section)
    out = tmp_path / "out" / name
    export.export(name, tmp_path, out, "coco", TASKS, log=quietly)
    return out


def rows(annotations):
    return [
        (a.id, a.label, a.crowd, a.rle, *np.round(a.box, 2), round(a.area, 2))
        for a in annotations
    ]


@pytest.mark.parametrize("real", [False, True])
def test_coco_comes_back_equal(tmp_path, request, real):
    path = tiny_sets.write_coco(tmp_path / "in")
    images = path.parent / "images"
    if real:
        folder = request.getfixturevalue("data_dir") / "coco_cc"
        path = folder / "annotations" / "instances_train2017.json"
        images = folder / "images"
    out = written(tmp_path, path, images)
    before = coco.read(path, images)
    assert sorted(p.name for p in out.iterdir()) == ["annotations", "images"]
    for split in ("train", "val"):
        again = out / "annotations" / f"instances_{split}.json"
        after = coco.read(again, out / "images" / split)
        assert not after.problems
        assert after.classes == before.classes
        assert after.category_ids == before.category_ids
        for one, other in zip(before.records, after.records, strict=True):
            assert (one.id, one.file_name) == (other.id, other.file_name)
            assert (one.height, one.width) == (other.height, other.width)
            assert one.path.read_bytes() == other.path.read_bytes()
            assert rows(one.truth) == rows(other.truth)


def test_boxes_of_whole_objects_and_at_an_angle_come_back(tmp_path):
    """Rows of COCO may have them, and what lacks a mask gets that of its corners."""
    path = tiny_sets.write_coco(tmp_path / "in")
    held = json.loads(path.read_text())
    first, last = held["annotations"][:2]
    first |= {"iscrowd": 0}
    last |= {"bbox": [1, 1, 62, 46], "iscrowd": 0}
    size = next(i for i in held["images"] if i["id"] == last["image_id"])
    w, h = size["width"], size["height"]
    first["amodal"] = [-3.5, 1, 30, 28.25]
    last.pop("segmentation", None)
    last["corners"] = [w / 2, 1, w - 1, h / 2, w / 2, h - 1, 1, h / 2]
    path.write_text(json.dumps(held))
    out = written(tmp_path, path, path.parent / "images")
    info = builder.info("c", tmp_path)
    assert info.has_amodal
    assert info.has_masks
    read = coco.read(
        out / "annotations" / "instances_train.json", out / "images" / "train"
    )
    found = {a.id: a for record in read.records for a in record.truth}
    assert found[first["id"]].amodal == (-3.5, 1, 26.5, 29.25)
    np.testing.assert_allclose(found[last["id"]].corners.ravel(), last["corners"])
    assert found[last["id"]].rle
    assert found[first["id"]].corners is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"amodal": [1, 2, 3]}, "malformed amodal box"),
        ({"amodal": [1, 2, 0, 3]}, "malformed amodal box"),
        ({"amodal": [1, 2, 9e9, 3]}, "amodal box far outside the image"),
        ({"corners": [1, 2, 3]}, "malformed corners"),
        ({"corners": [1, 2, 9, 2, 9, 9, 1, "x"]}, "malformed corners"),
        ({"corners": [1, 2, 9e9, 2, 9, 9, 1, 9]}, "malformed corners"),
        ({"corners": [1, 2, 1e300, 2, 9, 9, 1, 9]}, "malformed corners"),
        ({"amodal": [1, 2, float("inf"), 3]}, "number not finite"),
    ],
)
def test_boxes_that_make_no_sense_are_problems(tmp_path, change, reason):
    path = tiny_sets.write_coco(tmp_path / "in")
    held = json.loads(path.read_text())
    row = next(row for row in held["annotations"] if row.get("bbox"))
    row.pop("segmentation", None)
    row.update(change)
    path.write_text(json.dumps(held))
    found = coco.read(path, path.parent / "images")
    assert reason in {problem.reason for problem in found.problems}
    assert row["id"] not in [a.id for r in found.records for a in r.truth]


def test_keypoints_come_back_equal(tmp_path, data_dir):
    folder = data_dir / "keypoints_mmpose_coco" / "tests" / "data" / "coco"
    path = folder / "test_coco.json"
    out = written(tmp_path, path, folder)
    again = out / "annotations" / "instances_val.json"
    before = coco.read(path, folder)
    after = coco.read(again, out / "images" / "val")
    assert after.keypoints == before.keypoints
    assert len(after.keypoints) == 17
    for one, other in zip(before.records, after.records, strict=True):
        for a, b in zip(one.truth, other.truth, strict=True):
            points = np.zeros((17, 3)) if a.keypoints is None else a.keypoints
            np.testing.assert_allclose(b.keypoints, points, atol=1e-3)
    held = json.loads(again.read_text())["annotations"]
    counted = [sum(v > 0 for v in row["keypoints"][2::3]) for row in held]
    assert [row["num_keypoints"] for row in held] == counted


def image_bytes(form=".png"):
    return cv2.imencode(form, np.zeros((8, 9, 3), np.uint8))[1].tobytes()


def test_names_stay_in_the_folder_and_fit_the_content(tmp_path):
    names = ["../../x.png", "/etc/y.jpg", "a.bmp", "A.png", "a.tif", "d/../b.jpg"]
    records = [
        Record(f"i{i}", name, 8, 9, image=image_bytes(), truth=[])
        for i, name in enumerate(names)
    ]
    records[0].truth = [Annotation(7, (0, 0, 4, 4), 0, 16.0, difficult=True)]
    builder.write({"t": Dataset("t", ("k",), records)}, "n", tmp_path, detection.TASK)
    out = export.export("n", tmp_path, tmp_path / "out", "coco", TASKS, log=quietly)
    held = json.loads((out / "annotations" / "instances_t.json").read_text())
    expected = ["x.png", "y.png", "a.png", "A-2.png", "a-3.png", "b.png"]
    assert [row["file_name"] for row in held["images"]] == expected
    assert [row["id"] for row in held["images"]] == [f"i{i}" for i in range(6)]
    assert held["annotations"][0]["difficult"] == 1
    assert {p.name for p in out.rglob("*.png")} == {*expected}
    assert not (tmp_path / "x.png").exists()


def test_folders_for_classification_and_nothing_is_replaced(tmp_path):
    for i, label in enumerate(("cat", "dog")):
        tiny_sets.write_image(tmp_path / "in" / label / "a.png", width=9 + i)
    section = {"format": "folders", "splits": {"train": tmp_path / "in"}}
    prepare("f", tmp_path, classification.TASK, **section)
    out = tmp_path / "back"
    with pytest.raises(UserError, match=r"cannot hold; write it with --to=folders"):
        export.export("f", tmp_path, out, "coco", TASKS)
    assert not out.exists()
    export.export("f", tmp_path, out, "folders", TASKS, log=quietly)
    for label in ("cat", "dog"):
        one, other = tmp_path / "in" / label / "a.png", out / "train" / label / "a.png"
        assert one.read_bytes() == other.read_bytes()
    with pytest.raises(UserError, match="is there already; choose another --out"):
        export.export("f", tmp_path, out, "folders", TASKS)
    with pytest.raises(UserError, match="not one of 'coco', 'folders'"):
        export.export("f", tmp_path, tmp_path / "x", "voc", TASKS)


def test_an_interrupted_export_leaves_nothing(tmp_path, monkeypatch):
    path = tiny_sets.write_coco(tmp_path / "in")
    splits = {"train": path}
    images = path.parent / "images"
    prepare("c", tmp_path, detection.TASK, format="coco", splits=splits, images=images)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "_write", full)
    with pytest.raises(OSError, match="No space left"):
        export.export("c", tmp_path, tmp_path / "new" / "out", "coco", TASKS)
    assert not (tmp_path / "new").exists()
