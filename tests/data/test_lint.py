"""Every rule of the linter, on a folder with one thing wrong."""

import numpy as np
import pytest
import tiny_sets

from detjax.data import images, lint, rle, summary
from detjax.data.formats import coco, labelmaps, voc
from detjax.data.records import Annotation, Problem
from detjax.tasks import detection

NAN = float("nan")


def read_changed(folder, change):
    """A COCO set after `change(content)`."""
    content = tiny_sets.coco_content()
    change(content)
    return coco.read(tiny_sets.write_coco(folder, content), folder / "images")


def set_annotation(**values):
    def change(content):
        content["annotations"][0].pop("segmentation")
        content["annotations"][0].update(values)

    return change


def set_image(**values):
    return lambda content: content["images"][0].update(values)


def square(x1, y1, x2, y2):
    return [[x1, y1, x2, y1, x2, y2, x1, y2]]


ANNOTATION_FAULTS = [
    ("zero area", {"bbox": [10, 10, 0, 30]}, "box [10, 10, 10, 40]: zero width"),
    ("zero area", {"bbox": [10, 10, 5, 0]}, "zero height"),
    ("zero area", {"bbox": [10, 10, -5, 3]}, "negative width"),
    ("zero area", {"bbox": [-0.9, 10, 0.5, 3]}, "no area inside the image"),
    ("outside the image", {"bbox": [50, 10, 20, 3]}, "6 pixels outside the 64 x 48"),
    ("outside the image", {"bbox": [-1.5, 10, 20, 3]}, "1.5 pixels outside"),
    ("outside the image", {"bbox": [500, 10, 20, 3]}, "456 pixels outside"),
    ("number not finite", {"bbox": [NAN, 10, 20, 3]}, "a number is not finite"),
    ("number not finite", {"area": float("inf")}, "a number is not finite"),
    ("negative area", {"area": -5}, "an area of -5"),
    ("malformed area", {"area": True}, "area [True]: not 1 number"),
    ("malformed box", {"bbox": [True] * 4}, "not 4 numbers"),
    ("malformed crowd flag", {"iscrowd": 2}, "iscrowd 2: not 0 or 1"),
    ("malformed crowd flag", {"iscrowd": []}, "iscrowd []: not 0 or 1"),
    ("unknown category", {"category_id": 4}, "category 4, which the file does not"),
    ("unknown category", {"category_id": None}, "category None"),
    ("malformed box", {"bbox": [1, 2, 3]}, "box of 3 numbers"),
    ("malformed box", {"bbox": None}, "not 4 numbers"),
    ("malformed box", {"bbox": ["a", 1, 2, 3]}, "not 4 numbers"),
    ("malformed area", {"area": "large"}, "not 1 number"),
    (
        "mask disagrees with box",
        {"segmentation": square(40, 30, 60, 45)},
        "box [10, 10, 30, 30] and a mask in [40, 30, 60, 45]: IoU 0.00",
    ),
    (
        "empty mask",
        {"segmentation": {"size": [48, 64], "counts": [48 * 64]}},
        "a mask without a pixel",
    ),
    ("malformed mask", {"segmentation": [[1, 2, 3, 4]]}, "polygon of 4 numbers"),
    ("malformed mask", {"segmentation": [1, 2, 3, 4]}, "not lists of numbers"),
    ("malformed mask", {"segmentation": [["a"] * 6]}, "not lists of numbers"),
    ("malformed mask", {"segmentation": {"counts": "0"}}, "neither polygons nor run"),
    (
        "malformed mask",
        {"segmentation": {"size": [64, 48], "counts": "0"}},
        "(height, width) [64, 48] in an image of [48, 64]",
    ),
    (
        "malformed mask",
        {"segmentation": {"size": [48, 64], "counts": "0"}},
        "0 pixels in an image of 3072",
    ),
]


@pytest.mark.parametrize(("reason", "values", "words"), ANNOTATION_FAULTS)
def test_a_bad_annotation_is_named_and_dropped(tmp_path, reason, values, words):
    found = read_changed(tmp_path, set_annotation(**values))
    (problem,) = found.problems
    assert problem.reason == reason
    assert str(problem).startswith("annotation 17 of image 42 (a.png) has ")
    assert words in str(problem)
    assert [a.id for a in found.records[0].truth] == [18]
    assert len(found.records) == 3


IMAGE_FAULTS = [
    ("swapped height and width", {"height": 64, "width": 48}, "48 x 64 but is 64 x 48"),
    ("wrong image size", {"height": 50}, "is declared 64 x 50 but is 64 x 48"),
    ("missing image", {"file_name": "z.png"}, "does not exist"),
]


@pytest.mark.parametrize(("reason", "values", "words"), IMAGE_FAULTS)
def test_a_bad_image_is_named_and_dropped(tmp_path, reason, values, words):
    found = read_changed(tmp_path, set_image(**values))
    (problem,) = found.problems
    assert problem.reason == reason
    assert str(problem).startswith("image 42 (")
    assert words in str(problem)
    assert [r.id for r in found.records] == [43, 44]


@pytest.mark.parametrize("values", [{"file_name": ""}, {"id": [1]}, {"id": 1.5}])
def test_a_malformed_image_takes_its_annotations_along(tmp_path, values):
    found = read_changed(tmp_path, set_image(**values))
    assert summary.of(found, detection.TASK).problem_counts()["malformed image"] == 1
    assert "image at place 0 (instances.json)" in str(found.problems[0])
    assert [r.id for r in found.records] == [43, 44]


def test_undeclared_sizes_are_the_image_s(tmp_path):
    found = read_changed(tmp_path, lambda c: [i.pop("height") for i in c["images"]])
    assert not found.problems
    assert {(r.height, r.width) for r in found.records} == {(48, 64)}


def test_duplicate_ids(tmp_path):
    def change(content):
        content["images"].append(dict(content["images"][0], file_name="c.png"))
        content["annotations"].append(dict(content["annotations"][2]))

    found = read_changed(tmp_path, change)
    assert [str(p) for p in found.problems] == [
        "image 42 (c.png) has the id of a.png",
        "annotation 19 (instances.json) has the id of an earlier annotation",
    ]
    assert summary.of(found, detection.TASK).counts()["objects"] == 3


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"image_id": 7}, "unknown image"),
        ({"image_id": None}, "unknown image"),
        ({"id": None}, "malformed annotation"),
        ({"id": "x"}, "malformed annotation"),
    ],
)
def test_annotations_that_belong_nowhere(tmp_path, values, reason):
    found = read_changed(tmp_path, lambda c: c["annotations"][2].update(values))
    assert [p.reason for p in found.problems] == [reason]
    assert summary.of(found, detection.TASK).counts()["objects"] == 2


@pytest.mark.parametrize(
    ("points", "reason"),
    [([1, 2, 2], "malformed keypoints"), ([1, 2, 2, NAN, 3, 1], "number not finite")],
)
def test_bad_keypoints(tmp_path, points, reason):
    def change(content):
        content["categories"][0]["keypoints"] = ["head", "tail"]
        content["annotations"][2]["keypoints"] = points

    found = read_changed(tmp_path, change)
    assert [p.reason for p in found.problems] == [reason]


def test_what_sticks_out_by_a_pixel_is_cut_silently(tmp_path):
    found = read_changed(tmp_path, set_annotation(bbox=[-1, -0.5, 65.5, 49.5]))
    assert not found.problems
    assert found.records[0].truth[0].box == (0, 0, 64, 48)


def test_a_pixel_more_or_less_of_a_small_mask_is_no_disagreement():
    box = (10.0, 10.0, 11.5, 11.0)
    mask = rle.from_polygons(square(10, 10, 12, 12), (48, 64))
    assert lint.fault_of(Annotation(1, box, 0, 4, rle=mask), (48, 64)) is None


@pytest.mark.parametrize("ending", ["png", "jpg"])
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_cut_off_images_are_found(tmp_path, ending, keep):
    path = tiny_sets.write_image(tmp_path / f"a.{ending}")
    assert images.inspect(path)[1:] == ((48, 64), 1, None)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    reason, detail = images.inspect(path).fault
    assert reason == "unreadable image"
    assert "cut off" in detail


def test_other_files_are_not_images(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_text("no image")
    assert images.inspect(path).fault[0] == "unreadable image"
    assert images.inspect(tmp_path).fault[0] == "missing image"


def test_a_preview_s_end_is_not_the_image_s():
    assert images.cut_off(b"\xff\xd8\xff..\xff\xd9..\xff\xda....")
    assert not images.cut_off(b"\xff\xd8\xff..\xff\xd9..\xff\xda..\xff\xd9trailer")


VOC_FAULTS = [
    ("zero area", tiny_sets.voc_thing("a", 9, 9, 9, 20), "[9, 9, 9, 20]: zero width"),
    ("zero area", tiny_sets.voc_thing("a", 9, 9, 5, 20), "negative width"),
    ("malformed box", tiny_sets.voc_thing("a", 9, 9, "", 20), "not four numbers"),
    ("malformed box", "<object><name>a</name></object>", "not four numbers"),
    ("number not finite", tiny_sets.voc_thing("a", 9, 9, "nan", 20), "not finite"),
    ("outside the image", tiny_sets.voc_thing("a", 9, 9, 70, 20), "6 pixels outside"),
    ("unknown category", tiny_sets.voc_thing("z", 9, 9, 20, 20), "class 'z', which"),
]


@pytest.mark.parametrize(("reason", "things", "words"), VOC_FAULTS)
def test_a_bad_object_of_voc(tmp_path, reason, things, words):
    good = tiny_sets.voc_thing("a", 1, 1, 20, 20)
    root = tiny_sets.write_voc(tmp_path, {"x": tiny_sets.voc_xml(things + good)})
    found = voc.read(root, "train", classes=("a",))
    (problem,) = found.problems
    assert problem.reason == reason
    assert str(problem).startswith("object 1 of image 1 (x.xml of x.jpg) has ")
    assert words in str(problem)
    assert [a.id for a in found.records[0].truth] == [1_000_002]


def test_bad_files_of_voc(tmp_path):
    good = tiny_sets.voc_xml(tiny_sets.voc_thing("a", 1, 1, 20, 20))
    files = {"half": good[:90], "gone": good, "good": good}
    files["swapped"] = tiny_sets.voc_xml("", width=48, height=64)
    root = tiny_sets.write_voc(tmp_path, files)
    (root / "Annotations" / "gone.xml").unlink()
    found = voc.read(root, "train")
    assert [(p.reason, p.file) for p in found.problems] == [
        ("not XML", "half.xml"),
        ("missing annotation file", "gone.xml"),
        ("swapped height and width", "swapped.jpg"),
    ]
    assert "cannot be read as XML" in str(found.problems[0])
    assert [r.file_name for r in found.records] == ["good.jpg"]


def test_bad_label_maps(tmp_path):
    labels = np.zeros((48, 64), np.uint8)
    labels[:5, :5] = 1
    maps = dict.fromkeys(("good", "alone", "double", "half", "lost"), labels)
    maps["colour"] = np.zeros((48, 64, 3), np.uint8)
    maps["turned"] = labels.T.copy()
    folder = tiny_sets.write_labelmaps(tmp_path, maps)
    (folder / "labels" / "alone.png").unlink()
    (folder / "images" / "lost.png").unlink()
    tiny_sets.write_image(folder / "images" / "double.tif")
    half = folder / "labels" / "half.png"
    half.write_bytes(half.read_bytes()[:60])
    found = labelmaps.read(folder)
    assert {p.file: p.reason for p in found.problems} == {
        "alone.png": "missing label map",
        "double.tif": "duplicate id",
        "lost": "missing image",
        "half.png": "unreadable label map",
        "colour.png": "unreadable label map",
        "turned.png": "label map of another size",
    }
    assert sorted(r.file_name for r in found.records) == ["double.png", "good.png"]


def problem(number):
    return Problem(f"annotation {number} of image 1", "a.jpg", "zero area", "has none")


def test_settle_lists_the_first_and_counts_the_rest():
    bad = [problem(i) for i in range(25)]
    with pytest.raises(ValueError, match="annotation 19 of") as caught:
        lint.settle(bad, "fail")
    assert "annotation 20 of" not in str(caught.value)
    assert "and 5 more" in str(caught.value)
    lint.settle(bad, "skip")
    lint.settle([], "fail")
    with pytest.raises(ValueError, match="take 'fail' or 'skip'"):
        lint.settle(bad, "ignore")


def test_one_problem_is_one_sentence_with_advice():
    with pytest.raises(ValueError, match="has none; drop") as caught:
        lint.settle([problem(17)], "fail")
    assert "\n" not in str(caught.value)
