"""What the readers make of real sets and of every form an annotation may take."""

import json

import cv2
import numpy as np
import pytest
import tiny_sets
from pycocotools import mask as coco_mask

from detjax.data import report, summary
from detjax.data.formats import coco, coco_rows, labelmaps, voc
from detjax.tasks import detection


def decode(annotation, record):
    size = [record.height, record.width]
    return coco_mask.decode({"size": size, "counts": annotation.rle})


def test_bccd_is_whole_but_for_two_boxes(data_dir):
    splits = voc.read_splits(
        root=data_dir / "bccd" / "BCCD", splits=("train", "val", "test")
    )
    assert [len(d.records) for d in splits.values()] == [205, 87, 72]
    assert (
        sum(summary.of(d, detection.TASK).counts()["objects"] for d in splits.values())
        == 4886
    )
    assert {d.classes for d in splits.values()} == {("Platelets", "RBC", "WBC")}
    problems = [p for d in splits.values() for p in d.problems]
    assert sorted(p.file for p in problems) == [
        "BloodImage_00338.xml of BloodImage_00338.jpg",
        "BloodImage_00343.xml of BloodImage_00343.jpg",
    ]
    assert {p.reason for p in problems} == {"zero area"}
    assert "[504, 337, 504, 337]: zero width and zero height" in str(problems[1])


def test_nuclei_have_their_masks(data_dir):
    folder = data_dir / "dsb2018_nuclei"
    train = labelmaps.read(folder / "train", "train", ["nucleus"])
    val = labelmaps.read(folder / "val", "val", ["nucleus"])
    assert [len(d.records) for d in (train, val)] == [160, 40]
    assert [
        summary.of(d, detection.TASK).counts()["with masks"] for d in (train, val)
    ] == [4519, 1113]
    assert not train.problems + val.problems
    record = val.records[3]
    labels = labelmaps.load(folder / "val" / "labels" / record.file_name)
    union = sum(decode(a, record) for a in record.truth)
    np.testing.assert_array_equal(union, labels > 0)


def test_coco_photographs(data_dir):
    folder = data_dir / "coco_cc"
    found = coco.read(
        folder / "annotations" / "instances_train2017.json", folder / "images"
    )
    assert not found.problems
    assert len(found.classes) == 80
    counts = summary.of(found, detection.TASK).counts()
    assert (counts["images"], counts["objects"], counts["crowd"]) == (26, 181, 1)
    assert counts["with masks"] == 181
    assert (
        sum(n > 0 for n in summary.of(found, detection.TASK).class_counts().values())
        == 36
    )
    for record in found.records:
        for a in record.truth:
            assert a.area == decode(a, record).sum()


def test_keypoints_keep_their_names_and_order(data_dir):
    folder = data_dir / "keypoints_mmpose_coco" / "tests" / "data" / "coco"
    found = coco.read(folder / "test_coco.json", folder)
    assert found.keypoints[0] == "nose"
    assert len(found.keypoints) == 17
    annotation = found.records[0].truth[0]
    np.testing.assert_array_equal(annotation.keypoints[0], [367, 81, 2])
    assert annotation.keypoints.shape == (17, 3)


def test_coco_kinds_of_annotation(tmp_path):
    found = coco.read(tiny_sets.write_coco(tmp_path), tmp_path / "images")
    assert not found.problems
    assert found.classes == ("cat", "dog")  # ids 3 and 7
    first, second, empty = found.records
    assert [r.id for r in found.records] == [42, 43, 44]
    assert empty.truth == []
    polygon, crowd = first.truth
    assert polygon.box == (10, 10, 30, 30)
    assert (polygon.label, polygon.area, polygon.crowd) == (0, 400, False)
    assert decode(polygon, first)[10:30, 10:30].all()
    assert (crowd.label, crowd.area, crowd.crowd) == (1, 480, True)
    assert decode(crowd, first)[:, 40:50].all()
    (plain,) = second.truth
    assert plain.box == (5.5, 6.25, 25.5, 36.25)
    assert (plain.area, plain.rle) == (600, None)


def test_coco_box_and_compressed_mask(tmp_path):
    content = tiny_sets.coco_content()
    row = content["annotations"][0]
    mask = np.zeros((48, 64), np.uint8, order="F")
    mask[5:9, 20:31] = 1
    code = coco_mask.encode(mask)["counts"].decode()
    row["segmentation"] = {"size": [48, 64], "counts": code}
    del row["bbox"], row["area"]
    found = coco.read(tiny_sets.write_coco(tmp_path, content), tmp_path / "images")
    annotation = found.records[0].truth[0]
    assert annotation.box == (20, 5, 31, 9)
    assert annotation.area == 44


def test_chosen_classes_give_the_order(tmp_path):
    path = tiny_sets.write_coco(tmp_path)
    found = coco.read(path, tmp_path / "images", classes=("dog", "cat"))
    assert [a.label for a in found.records[0].truth] == [1, 0]
    found = coco.read(path, tmp_path / "images", classes=("dog",))
    assert [p.reason for p in found.problems] == ["unknown category"]
    assert "'cat', which is not among the chosen ones" in str(found.problems[0])


def test_voc_boxes_count_from_one_and_include_their_end(tmp_path):
    things = tiny_sets.voc_thing("b", 1, 1, 64, 48) + tiny_sets.voc_thing(
        "a", 11, 21, 20, 40, difficult=1
    )
    files = {"y": tiny_sets.voc_xml(things), "x": tiny_sets.voc_xml("")}
    found = voc.read(tiny_sets.write_voc(tmp_path, files), "train")
    assert not found.problems
    assert found.classes == ("a", "b")
    assert [(r.id, r.file_name) for r in found.records] == [(1, "y.jpg"), (2, "x.jpg")]
    whole, small = found.records[0].truth
    assert (whole.box, whole.label, whole.difficult) == ((0, 0, 64, 48), 1, False)
    assert (small.box, small.area, small.difficult) == ((10, 20, 20, 40), 200, True)
    everything = voc.read(tmp_path, "train", voc.EVERY)
    assert [r.file_name for r in everything.records] == ["x.jpg", "y.jpg"]


@pytest.mark.parametrize("ending", ["png", "tif", "npy"])
def test_label_maps_of_any_format(tmp_path, ending):
    labels = np.zeros((48, 64), np.uint16)
    labels[2:6, 3:9], labels[10:12, 10:20] = 300, 2
    folder = tiny_sets.write_labelmaps(tmp_path, {"a": labels})
    (folder / "labels" / "a.png").unlink()
    path = folder / "labels" / f"a.{ending}"
    np.save(path, labels) if ending == "npy" else cv2.imwrite(str(path), labels)
    (record,) = labelmaps.read(folder).records
    boxes = [a.box for a in record.truth]
    assert boxes == [(10, 10, 20, 12), (3, 2, 9, 6)]
    assert [a.area for a in record.truth] == [20, 24]


def test_label_maps_have_one_class(tmp_path):
    with pytest.raises(ValueError, match="one class"):
        labelmaps.read(tmp_path, classes=("a", "b"))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (json.dumps(tiny_sets.coco_content())[:200], r"line 1, column \d+ .*too early"),
        ("", "line 1, column 1 .*too early"),
        ('{"images": [,]}', "line 1, column 13 .*mend it"),
        ("[]", "no list of images"),
        ('{"images": [], "annotations": []}', "no list of categories"),
        ('{"images": [1], "annotations": [], "categories": []}', "no list of images"),
        (
            '{"images": [], "annotations": [{"segments_info": []}], "categories": []}',
            "panoptic",
        ),
    ],
)
def test_files_that_are_not_instances(tmp_path, text, what):
    path = tiny_sets.write_coco(tmp_path)
    path.write_text(text)
    with pytest.raises(ValueError, match=what) as caught:
        coco.read(path, tmp_path / "images")
    assert str(path) in str(caught.value)


def test_binary_is_not_json(tmp_path):
    path = tiny_sets.write_coco(tmp_path)
    path.write_bytes(b'{"a": "\xff\xfe\x80"}')
    with pytest.raises(ValueError, match="not UTF-8 text at byte 7"):
        coco.read(path, tmp_path / "images")


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ([{"id": 1, "name": "a"}, {"id": 1, "name": "b"}], "category 1 .* twice"),
        ([{"id": 1, "name": "a"}, {"id": 2, "name": "a"}], "category 2 .* twice"),
        ([{"id": 1}], "without an id or a name"),
        (
            [
                {"id": 1, "name": "a", "keypoints": ["x"]},
                {"id": 2, "name": "b", "keypoints": ["y"]},
            ],
            "different keypoints",
        ),
    ],
)
def test_categories_that_make_no_sense(rows, what):
    with pytest.raises(ValueError, match=what):
        coco_rows.categories_of(rows, "a.json")


def test_unknown_chosen_class_names_those_there_are():
    rows = [{"id": 1, "name": "cat"}]
    with pytest.raises(ValueError, match="no category dog; it has cat"):
        coco_rows.categories_of(rows, "a.json", ("dog",))


def test_missing_folders_and_lists_are_named(tmp_path):
    path = tiny_sets.write_coco(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere"):
        coco.read(path, tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no image folder for val"):
        coco.read_splits(
            splits={"train": path, "val": path}, images={"train": tmp_path}
        )
    with pytest.raises(FileNotFoundError, match="no folder Annotations"):
        voc.read(tmp_path, "train", classes=("a",))
    root = tiny_sets.write_voc(tmp_path / "voc", {"x": tiny_sets.voc_xml("")})
    with pytest.raises(FileNotFoundError, match=r"no list .*val.txt \(there: train\)"):
        voc.read(root, "val", classes=("a",))
    with pytest.raises(ValueError, match=r"no object .* has a name"):
        voc.read(root, "train")
    with pytest.raises(FileNotFoundError, match="need images/ and labels/"):
        labelmaps.read(tmp_path)


def test_report_counts_what_was_read(tmp_path):
    content = tiny_sets.coco_content()
    content["annotations"][2]["category_id"] = 99
    path = tiny_sets.write_coco(tmp_path, content)
    text = report.table(
        summary.of(coco.read(path, tmp_path / "images"), detection.TASK)
    )
    lines = {" ".join(line.split()) for line in text.splitlines()}
    assert {
        "images 3",
        "images without objects 2",
        "objects 2",
        "crowd 1",
        "dog 1",
        "unknown category 1",
        "image sizes 64 x 48 to 64 x 48",
    } <= lines


def test_voc_without_lists_as_labelimg_writes_it(tmp_path):
    text = tiny_sets.voc_xml(tiny_sets.voc_thing("a", 1, 1, 9, 9))
    whole = tiny_sets.write_voc(tmp_path / "voc", {"x": text, "y": text})
    pool = {"all": voc.EVERY}
    places = {
        "flat": (".", "."),
        "small": ("annotations", "images"),
        "mixed": (".", "images"),
    }
    for name, (xml, images) in places.items():
        root = tmp_path / name
        for below, ending in ((xml, "xml"), (images, "jpg")):
            (root / below).mkdir(parents=True, exist_ok=True)
            for path in whole.rglob(f"*.{ending}"):
                (root / below / path.name).write_bytes(path.read_bytes())
        found = voc.read_splits(root=root, splits=pool)["all"]
        assert len(found.records) == 2, name
        assert not found.problems
        assert voc.digests(root=root, splits=pool)
    apart = voc.read_splits(
        root=tmp_path / "flat", splits=pool, images=whole / "JPEGImages"
    )
    assert len(apart["all"].records) == 2
    (whole / "JPEGImages").rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="with --images"):
        voc.read_splits(root=whole, splits=pool)
    with pytest.raises(ValueError, match="no split is named"):
        voc.catalogues(root=tmp_path / "flat")


def test_coco_below_a_root_and_images_that_nobody_named(tmp_path):
    tiny_sets.write_coco(tmp_path)
    splits = {"train": "instances.json"}
    for images in (None, "images", tmp_path / "images", {"train": "images"}):
        found = coco.read_splits(root=tmp_path, splits=splits, images=images)
        assert len(found["train"].records) == 3
        assert not found["train"].problems
    assert coco.digests(root=tmp_path, splits=splits)
    with pytest.raises(ValueError, match="is a folder, not COCO's file of instances"):
        coco.catalogues(splits={"train": tmp_path})
    with pytest.raises(FileNotFoundError, match=r"did you mean .*instances.json\?"):
        coco.catalogues(splits={"train": tmp_path / "instance.json"})
