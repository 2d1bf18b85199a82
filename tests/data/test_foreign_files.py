"""Files from anywhere: what they name, and what they hide, ends as a sentence."""

import io
import pathlib
import time

import cv2
import numpy as np
import pytest
import tiny_sets

from detjax.data import builder, lint, rle, summary
from detjax.data.formats import coco, labelmaps, voc
from detjax.data.prepare import prepare
from detjax.tasks import detection


def read_changed(folder, change, **more):
    """A COCO set after `change(content)`."""
    content = tiny_sets.coco_content()
    change(content)
    path = tiny_sets.write_coco(folder / "root", content)
    return coco.read(path, folder / "root" / "images", **more)


OUTSIDE = ["../../other.png", "/etc/passwd", "x/../../a.png", ".."]


@pytest.mark.parametrize("name", OUTSIDE)
def test_images_outside_the_folder_are_refused(tmp_path, name):
    found = read_changed(tmp_path, lambda c: c["images"][0].update(file_name=name))
    (problem,) = found.problems
    assert problem.reason == "file outside the folder"
    assert f"{name}; allow it with --allow-outside" in str(problem)


def test_images_outside_can_be_allowed_and_links_are(tmp_path):
    outside = tiny_sets.write_image(tmp_path / "other.png")
    names = ["../../other.png", "x/../b.png", "link.png"]
    (tmp_path / "root" / "images" / "x").mkdir(parents=True)
    (tmp_path / "root" / "images" / "link.png").symlink_to(outside)

    def change(content):
        for row, name in zip(content["images"], names, strict=True):
            row["file_name"] = name

    assert len(read_changed(tmp_path, change).problems) == 1
    assert not read_changed(tmp_path, change, allow_outside=True).problems


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a\0.png", r"image 42 (a\x00.png) has a file name with a zero byte"),
        ("a\ud800.png", r"image 42 (a\ud800.png) has a file name that is not Unicode"),
        ("a\udce9.png", r"(a\udce9.png) has a file name that is not Unicode"),
        ("a" * 300, "too long"),
    ],
)
def test_names_of_no_file(tmp_path, name, words):
    found = read_changed(tmp_path, lambda c: c["images"][0].update(file_name=name))
    (problem,) = found.problems
    assert words in str(problem)
    str(problem).encode()
    assert len(found.records) == 2


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("  ", "class name '  ' of instances.json is nothing but spaces"),
        ("a\nb", r"class name 'a\\nb' of instances.json has line breaks"),
        ("cat\n", "has line breaks"),
        (" dog", "class 'dog' of instances.json is there twice"),
        ("\ud800", "is not Unicode"),
    ],
)
def test_class_names_that_tfds_cannot_keep(tmp_path, name, words):
    with pytest.raises(ValueError, match=words):
        read_changed(tmp_path, lambda c: c["categories"][1].update(name=name))


def test_no_class_and_no_object(tmp_path):
    with pytest.raises(ValueError, match=r"there is no class of instances\.json"):
        read_changed(tmp_path, lambda c: c.update(categories=[]))
    content = tiny_sets.coco_content() | {"annotations": []}
    path = tiny_sets.write_coco(tmp_path, content)
    with pytest.raises(ValueError, match="no image of 'c' has an object"):
        prepare(
            "c",
            tmp_path,
            detection.TASK,
            format="coco",
            splits={"a": path},
            images=tmp_path / "images",
        )
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("points", [5, {"a": 1}, [1], ["\ud800"]])
def test_keypoints_that_are_no_names(tmp_path, points):
    with pytest.raises(ValueError, match="category 'cat' whose keypoints are not a li"):
        read_changed(tmp_path, lambda c: c["categories"][1].update(keypoints=points))


@pytest.mark.parametrize(
    ("point", "reason"),
    [
        ([1e30, -1e30, 2], "keypoint far outside the image"),
        ([-65, 1, 1], "keypoint far outside the image"),
        ([1e300, 1, 1], "number not finite"),
        ([1, 1, 7], "malformed keypoints"),
        ([1e30, 5, 0], None),
        ([-60, 90, 2], None),
    ],
)
def test_keypoints_are_near_their_image(tmp_path, point, reason):
    def change(content):
        content["categories"][1]["keypoints"] = ["nose"]
        content["annotations"][0]["keypoints"] = point

    found = read_changed(tmp_path, change)
    assert [p.reason for p in found.problems] == ([reason] if reason else [])


@pytest.mark.parametrize(
    ("given", "crowd"),
    [(0, False), ("0", False), (False, False), (1, True), ("1", True), (True, True)],
)
def test_words_for_a_crowd(tmp_path, given, crowd):
    found = read_changed(tmp_path, lambda c: c["annotations"][0].update(iscrowd=given))
    assert found.records[0].truth[0].crowd == crowd


@pytest.mark.parametrize(
    "counts",
    [5, None, {"a": 1}, [[1], [2]], [2**40, 3], [True, 3071], "o" * 10_000_000],
)
def test_counts_of_other_kinds(tmp_path, counts):
    mask = {"size": [48, 64], "counts": counts}
    found = read_changed(
        tmp_path, lambda c: c["annotations"][0].update(segmentation=mask)
    )
    (problem,) = found.problems
    assert str(problem).startswith("annotation 17 of image 42 (a.png) has a mask")
    assert len(str(problem)) < 300


def long_code(values, length):
    """Runs' code whose fourth number is `length` characters long."""
    text = ""
    for i, value in enumerate(values):
        rest = value - (values[i - 2] if i > 2 else 0)
        for k in range(30):
            bits, rest = rest & 31, rest >> 5
            done = (rest == 0 and not bits & 16) or (rest == -1 and bits & 16)
            more = k < length - 1 if i == 3 else not done
            text += chr(48 + (bits | 32 * more))
            if not more:
                break
    return text


def test_overlong_codes_are_shortened_or_refused():
    runs = [490, 200, 28, 100, 3072 - 818]
    plain = rle.from_runs(runs, (48, 64))
    assert rle.from_text(long_code(runs, 7), (48, 64)) == plain
    with pytest.raises(ValueError, match="more than 7 characters"):
        rle.from_text(long_code(runs, 15), (48, 64))


def test_lists_of_voc(tmp_path):
    good = tiny_sets.voc_xml(tiny_sets.voc_thing("a", 1, 1, 20, 20))
    root = tiny_sets.write_voc(tmp_path / "voc", {"x y": good, "z": good})
    listing = root / "ImageSets" / "Main" / "train.txt"
    (tmp_path / "secret.xml").write_text(good.replace("<name>a", "<name>b"))
    listing.write_text("x y\nz  1\n../../secret\nz\n")
    found = voc.read(root, "train")
    assert [(r.id, r.file_name) for r in found.records] == [
        (1, "x y.jpg"),
        (2, "z.jpg"),
    ]
    assert [p.reason for p in found.problems] == [
        "file outside the folder",
        "listed twice",
    ]
    assert "image 4 (train.txt) is z, which is listed twice" in str(found.problems[1])
    listing.write_bytes("caf\xe9\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"train\.txt is not UTF-8 text at byte 3"):
        voc.read(root, "train")


LAUGHS = '<!DOCTYPE z [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]>'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (LAUGHS.encode() + b"<annotation>&b;</annotation>", "has a <!DOCTYPE"),
        (
            '<?xml version="1.0" encoding="utf-16"?>'.encode("utf-16")
            + (LAUGHS + "<annotation/>").encode("utf-16-le"),
            "has a <!DOCTYPE",
        ),
        (b'<!DOCTYPE z SYSTEM "file:///etc/passwd"><annotation/>', "has a <!DOCTYPE"),
        (b"<a>" * 1000 + b"</a>" * 1000, "more than 100 deep"),
        (b"", "cannot be read as XML: no element found"),
        (b'<?xml version="1.0" encoding="klingon"?><a/>', "cannot be read as XML"),
    ],
)
def test_xml_that_is_no_annotation(tmp_path, text, words):
    good = tiny_sets.voc_xml(tiny_sets.voc_thing("a", 1, 1, 20, 20))
    root = tiny_sets.write_voc(tmp_path, {"one": good, "two": good})
    (root / "Annotations" / "one.xml").write_bytes(text)
    found = voc.read(root, "train")
    (problem,) = found.problems
    assert str(problem).startswith("annotation file of image 1 (one.xml) ")
    assert words in str(problem)
    assert [r.id for r in found.records] == [2]


def save(array):
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()


def archive():
    out = io.BytesIO()
    np.savez(out, a=MAP)
    return out.getvalue()


MAP = np.zeros((48, 64), np.uint8)
MAP[5:20, 5:20], MAP[25:40, 30:50] = 1, 2
HUGE = save(MAP).replace(b"(48, 64)", b"(9999999, 9999999)").replace(b" " * 14, b"", 1)


@pytest.mark.parametrize(
    ("ending", "data", "words"),
    [
        (
            ".png",
            cv2.imencode(".jpg", MAP * 100)[1].tobytes(),
            "is a JPEG, which is los",
        ),
        (
            ".png",
            cv2.imencode(".png", np.dstack([MAP] * 3))[1].tobytes(),
            "one channel",
        ),
        (
            ".png",
            cv2.imencode(".png", MAP, [cv2.IMWRITE_PNG_BILEVEL, 1])[1].tobytes(),
            "one bit a pixel",
        ),
        (".tif", cv2.imencode(".tif", np.float32(MAP))[1].tobytes(), "whole numbers"),
        (".npy", save(np.float32(MAP)), "whole numbers (float32"),
        (".npy", save(np.array([[{}]], object)), "no array of whole numbers"),
        (".npy", save(-MAP.astype(np.int32)), "has numbers below 0"),
        (".npy", archive(), "no array of whole numbers"),
        (".npy", b"PK\x03\x04" + b"abc" * 50, "no array of whole numbers"),
        (".npy", HUGE, "no array of whole numbers"),
        (".npy", save(MAP)[:-5], "no array of whole numbers"),
    ],
)
def test_label_maps_of_other_kinds(tmp_path, ending, data, words):
    folder = tiny_sets.write_labelmaps(tmp_path, {"a": MAP})
    (folder / "labels" / "a.png").unlink()
    (folder / "labels" / f"a{ending}").write_bytes(data)
    (problem,) = labelmaps.read(folder).problems
    assert str(problem).startswith(f"label map of image 1 (a{ending}) is ") or (
        str(problem).startswith(f"label map of image 1 (a{ending}) has ")
    )
    assert words in str(problem)


def test_resource_forks_and_names_that_are_not_unicode(tmp_path):
    folder = tiny_sets.write_labelmaps(tmp_path, {"a": MAP, "b": MAP})
    for part in ("images", "labels"):
        (folder / part / "._a.png").write_bytes(b"\0\x05\x16\x07")
        (folder / part / "b.png").rename(folder / part / "caf\udce9.png")
    found = labelmaps.read(folder)
    assert [r.file_name for r in found.records] == ["a.png"]
    (problem,) = found.problems
    assert str(problem).startswith(
        r"image 2 (caf\udce9.png) has a file name that is no"
    )


def test_as_many_instances_as_there_are_numbers(tmp_path):
    labels = np.zeros(256 * 256, np.uint16)
    labels[:65535] = np.arange(1, 65536)
    folder = tmp_path / "maps"
    tiny_sets.write_image(folder / "images" / "a.png", 256, 256)
    (folder / "labels").mkdir()
    cv2.imwrite(str(folder / "labels" / "a.png"), labels.reshape(256, 256))
    since = time.monotonic()
    prepare("n", tmp_path, detection.TASK, format="labelmaps", splits={"train": folder})
    (record,) = builder.source("n", tmp_path, "train", detection.TASK)
    assert time.monotonic() - since < 20
    assert len(record.truth) == 65535
    assert record.truth[-1].id == lint.object_id(1, 65535)
    assert record.truth[300].box == (44, 1, 45, 2)


def test_folders_that_cannot_be_named(tmp_path):
    folder = pathlib.Path(f"{tmp_path}/caf\udce9")
    with pytest.raises(ValueError, match=r"caf\\udce9' is not Unicode"):
        prepare("s", folder, detection.TASK, format="shapes")
    for wrong, words in (("a\0b", "zero byte"), ("~nobody-at-all/x", "not known")):
        with pytest.raises(ValueError, match=words):
            prepare("s", wrong, detection.TASK, format="shapes")
    with pytest.raises(ValueError, match="not known"):
        coco.read("~nobody-at-all/a.json", tmp_path)


def test_summaries_of_nothing():
    assert summary.Summary("a", ("b",)).sides().shape == (0,)
