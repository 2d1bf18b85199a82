"""YOLO's text files: layouts, rows, and what is wrong with them."""

import itertools
import pathlib
import re

import numpy as np
import pytest
import tiny_sets

from detjax.data import builder
from detjax.data.formats import yolo, yolo_rows, yolo_yaml
from detjax.data.prepare import prepare
from detjax.data.records import Annotation, Problem, Record
from detjax.errors import MissingFileError, UserError
from detjax.tasks import detection

# One object of 64 x 48: a box from (16, 12) to (32, 36).
BOX = "0 0.375 0.5 0.25 0.5"


def write(folder, rows, images="images", labels="labels"):
    """Images of 64 x 48 with the label files `rows`; None is no file."""
    for name, text in rows.items():
        tiny_sets.write_image(folder / images / f"{name}.png")
        path = folder / labels / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is not None:
            path.write_text(text)
    return folder


def read(root, **arguments):
    """The one split of a set."""
    arguments = {"splits": {"train": "*"}, **arguments}
    return yolo.read_splits(root=root, **arguments)["train"]


def rows_of(text, points=0, dims=3, size=(48, 64)):
    """What the rows of an image of 64 x 48 are."""
    record = Record(1, "a.png", *size)
    layout = yolo_rows.Layout({0: "a", 1: "b"}, ("a", "b"), points, dims)
    return [*yolo_rows.annotations(text, record, layout, "a.txt")]


LAYOUTS = {
    "train/images": ("{}/images", "{}/labels"),
    "images/train": ("images/{}", "labels/{}"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("described", ["yaml", "classes.txt", "flag"])
def test_layouts_with_and_without_a_yaml(tmp_path, layout, described):
    for split, name in (("train", "t"), ("valid", "v")):
        images, labels = (part.format(split) for part in LAYOUTS[layout])
        write(tmp_path, {name: BOX}, images, labels)
    arguments = {}
    if described == "yaml":
        train, val = (LAYOUTS[layout][0].format(s) for s in ("train", "valid"))
        text = f"train: {train}\nval: [{val}]\nnames: {{0: cat, 1: dog}}\n"
        (tmp_path / "data.yaml").write_text(text)
    elif described == "classes.txt":
        (tmp_path / "classes.txt").write_text("cat\ndog\n")
    else:
        arguments = {"classes": ("cat", "dog")}
    found = yolo.read_splits(root=tmp_path, **arguments)
    assert sorted(found) == ["train", "val"]
    assert {d.classes for d in found.values()} == {("cat", "dog")}
    (record,) = found["val"].records
    assert record.file_name == f"{LAYOUTS[layout][0].format('valid')}/v.png"
    assert record.truth[0].box == (16, 12, 32, 36)
    assert not found["train"].problems


@pytest.mark.parametrize(
    ("path", "train"),
    [
        ("/home/joe/sets/mine", "images/train"),
        ("../datasets/mine", "images/train"),
        (None, "../images/train"),
        (None, "/content/mine/images/train"),
        (None, "C:\\sets\\mine\\images\\train"),
        (None, "train.txt"),
        (".", "train.txt"),
    ],
)
def test_paths_of_other_machines(tmp_path, path, train):
    root = write(tmp_path / "mine", {"a": BOX}, "images/train", "labels/train")
    (root / "train.txt").write_text("/home/joe/mine/images/train/a.png\n")
    held = f"train: {train}\nnames: [cat]\n" + (f"path: {path}\n" if path else "")
    (root / "data.yaml").write_text(held)
    (record,) = yolo.read_splits(root=root / "data.yaml")["train"].records
    assert record.file_name == "images/train/a.png"
    assert len(record.truth) == 1


def test_images_without_labels_are_background_and_counted(tmp_path):
    write(tmp_path, {"a": BOX, "b": None, "c": ""})
    lines = []
    prepare(
        "y",
        tmp_path / "out",
        detection.TASK,
        format="yolo",
        root=tmp_path,
        classes=("cat",),
        splits={"train": "*"},
        log=lines.append,
    )
    assert [
        len(r.truth)
        for r in builder.source("y", tmp_path / "out", "train", detection.TASK)
    ] == [1, 0, 0]
    said = "\n".join(lines)
    assert "1 of 3 images have no label file" in said
    assert "(images/b.png)" in said


def test_polygons_and_boxes_in_one_set(tmp_path):
    square = "0 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75"
    (shape, box) = (
        read(write(tmp_path, {"a": f"{square}\n\n{BOX}"}), classes=["x"])
        .records[0]
        .truth
    )
    assert shape.box == (16, 12, 48, 36)
    assert shape.area == 32 * 24
    assert shape.rle is not None
    assert (box.rle, box.area) == (None, 16 * 24)
    assert box.id % 1_000_000 == 3  # its line


def test_poses_and_their_names(tmp_path):
    root = write(tmp_path, {"a": f"{BOX} 0.5 0.5 2 0.25 0.25 1 0 0 0"})
    head = "train: images\nnames: [person]\nkpt_shape: [3, 3]\n"
    (root / "data.yaml").write_text(f"{head}flip_idx: [0, 2, 1]\n")
    found = yolo.read_splits(root=root)["train"]
    expected = [[32, 24, 2], [16, 12, 1], [0, 0, 0]]
    np.testing.assert_array_equal(found.records[0].truth[0].keypoints, expected)
    # Mirrored pictures swap what is named left and right.
    assert found.keypoints == ("point0", "left_point1", "right_point1")
    names = "[nose, left_eye, right_eye]"
    (root / "data.yaml").write_text(
        f"{head}flip_idx: [0, 2, 1]\nkpt_names: {{0: {names}}}\n"
    )
    assert yolo_yaml.describe(root).keypoints == ("nose", "left_eye", "right_eye")


def test_points_without_visibility():
    (found,) = rows_of(f"{BOX} 0.5 0.5 0 0", points=2, dims=2)
    np.testing.assert_array_equal(found.keypoints, [[32, 24, 2], [0, 0, 0]])


@pytest.mark.parametrize(
    ("text", "reason", "words"),
    [
        ("2 0.5 0.5 0.1 0.1", "unknown class", "has class 2, .* numbered 0 to 1"),
        ("0.5 0.5 0.5 0.1 0.1", "unknown class", "0.5: not a whole number"),
        ("-1 0.5 0.5 0.1 0.1", "unknown class", "has class -1"),
        ("cat 0.5 0.5 0.1 0.1", "malformed row", "'cat 0.5 .*not a class number"),
        ("0 0.5 0.5 0.1", "malformed row", "has 4 numbers: a class and a box are 5"),
        ("0 .5 .5 .1 .1 .9", "malformed row", "has 6 numbers"),
        ("0 .1 .1 .2 .1 .2 .2 .1", "malformed row", "has 8 numbers"),
        ("0 nan 0.5 0.1 0.1", "malformed row", "not finite"),
        ("0 320 240 40 40", "malformed row", "has the number 320.* not pixels"),
        ("0 1.2 0.5 0.1 0.1", "malformed row", "1.2: not between 0 and 1"),
        ("0 0.5 0.5 0 0.1", "malformed row", "a width of 0"),
        ("0 .5 .5 .5 .5 .5 .5", "malformed row", "without a pixel"),
        (f"{BOX}\n{BOX}", "repeated row", "is line 1 again"),
    ],
)
def test_a_bad_row_is_named_by_its_line(text, reason, words, tmp_path):
    found = [x for x in rows_of(text) if isinstance(x, Problem)]
    assert [p.reason for p in found] == [reason]
    assert re.search(words, str(found[0]))
    assert str(found[0]).startswith(
        f"line {1 + text.count(chr(10))} of image 1 (a.txt of a.png)"
    )


def test_poses_of_other_counts():
    (found,) = rows_of("0 .5 .5 .1 .1 .5 .5", points=2)
    assert "with 2 keypoints of 3 numbers 11" in str(found)


def test_what_rounding_moves_outside_is_cut(tmp_path):
    (annotation,) = (
        read(write(tmp_path, {"a": "0 0.25 0.5 0.500004 1"}), classes=["x"])
        .records[0]
        .truth
    )
    assert annotation.box == pytest.approx((0, 0, 32, 48), abs=1e-3)
    assert min(annotation.box) == 0


def test_problems_of_files_are_named(tmp_path):
    root = write(tmp_path, {"a": BOX, "b": BOX})
    tiny_sets.write_image(root / "images" / "b.jpg")
    (root / "labels" / "z.txt").write_text(BOX)
    (root / "labels" / "a.txt").write_bytes(b"\xff\xfe0")
    found = read(root, classes=["x"])
    reasons = {p.reason: str(p) for p in found.problems}
    assert set(reasons) == {
        "shared label file",
        "missing image",
        "unreadable label file",
    }
    assert "z.txt" in reasons["missing image"]
    assert "byte 0 is no UTF-8" in reasons["unreadable label file"]


def test_a_list_names_a_picture_twice_and_one_outside(tmp_path):
    root = write(tmp_path / "root", {"a": BOX})
    tiny_sets.write_image(tmp_path / "secret.png")
    (root / "classes.txt").write_text("x")
    (root / "t.txt").write_text(
        "images/a.png\n./images/a.png\n../secret.png\nimages/no.png\n"
    )
    found = yolo.read_splits(root=root, splits={"train": "t.txt"})["train"]
    assert {p.reason for p in found.problems} == {
        "listed twice",
        "file outside the folder",
        "missing image",
    }
    free = yolo.read_splits(root=root, splits={"train": "t.txt"}, allow_outside=True)
    assert len(free["train"].records) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("names: [a, a]", "twice"),
        ("names: 3", "neither a list nor numbers"),
        ("names: [a]\nnc: 2", "nc is 2, but there are 1 names"),
        ("train: x", "has no names"),
        ("names: [a", "cannot be read as YAML"),
        ("names: [a]\nkpt_shape: [2]", "kpt_shape is"),
        ("names: [a]\nkpt_shape: [2, 3]\nflip_idx: [0, 0]", "flip_idx is"),
        ("names: [a]\nkpt_shape: [2, 3]\nkpt_names: [x]", "no list of 2 names"),
        ("names: [a]\ntrain: nowhere", "neither there nor beside"),
        ("names: [a]\ntrain: 3", "name a folder"),
        ("names: !!python/object/apply:os.system [id]", "cannot be read as YAML"),
    ],
)
def test_what_a_yaml_lacks(tmp_path, text, words):
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(UserError, match=words) as caught:
        yolo_yaml.describe(tmp_path)
    assert "data.yaml" in str(caught.value)


@pytest.mark.parametrize("key", ["names", "train", "path", "kpt_shape", "flip_idx"])
def test_a_yaml_that_repeats_itself_is_refused_at_once(tmp_path, key):
    bomb = "a: &a0 [x, x]\n"
    for i in range(60):
        bomb += f"b{i}: &a{i + 1} [*a{i}, *a{i}]\n"
    rest = {"names": "[a]", "train": "x", "kpt_shape": "[2, 3]", "path": "."}
    rest[key] = "*a60"
    bomb += "".join(f"{k}: {v}\n" for k, v in rest.items())
    (tmp_path / "data.yaml").write_text(bomb)
    with pytest.raises(UserError):
        yolo_yaml.describe(tmp_path)


def test_sets_without_labels_names_or_splits(tmp_path):
    root = write(tmp_path / "a", {"a": None, "b": None})
    with pytest.raises(UserError, match=r"none of the 2 pictures .*a.png would be"):
        read(root, classes=["x"])
    with pytest.raises(UserError, match=r"no data.yaml and no classes.txt"):
        read(root)
    with pytest.raises(UserError, match="no split is named"):
        yolo.catalogues(root=write(tmp_path / "b", {"a": BOX}), classes=["x"])
    with pytest.raises(MissingFileError, match=r"did you mean .*/b\?"):
        yolo.catalogues(root=tmp_path / "bb")
    with pytest.raises(UserError, match="no class z; it has x"):
        (root / "classes.txt").write_text("x")
        read(root, classes=["z"])


def test_a_split_outside_is_refused(tmp_path):
    write(tmp_path / "far", {"a": BOX})
    root = tmp_path / "near"
    root.mkdir()
    (root / "data.yaml").write_text(
        f"path: {tmp_path}/far\ntrain: images\nnames: [x]\n"
    )
    with pytest.raises(UserError, match="allow it with --allow-outside"):
        yolo.catalogues(root=root)
    assert len(yolo.read_splits(root=root, allow_outside=True)["train"].records) == 1


def test_digests_follow_labels_and_names(tmp_path):
    root = write(tmp_path, {"a": BOX})
    (root / "classes.txt").write_text("x")

    def now():
        return yolo.digests(root=root, splits={"train": "*"})["train"]

    seen = [now()]
    (root / "labels" / "a.txt").write_text(BOX + " ")
    seen.append(now())
    (root / "classes.txt").write_text("y")
    seen.append(now())
    (root / "labels" / "a.txt").unlink()
    seen.append(now())
    assert all(a != b for a, b in itertools.combinations(seen, 2))
    assert pathlib.Path(root).exists()


def test_real_boxes_survive_the_form(tmp_path, data_dir):
    """BCCD as YOLO writes it is BCCD, to a hundredth of a pixel."""
    from detjax.data.formats import voc

    held = voc.read(data_dir / "bccd" / "BCCD", "val")
    known = {}
    for record in held.records[:8]:
        stem = pathlib.Path(record.file_name).stem
        rows = [
            f"{a.label} {(a.box[0] + a.box[2]) / 2 / record.width:.6f} "
            f"{(a.box[1] + a.box[3]) / 2 / record.height:.6f} "
            f"{(a.box[2] - a.box[0]) / record.width:.6f} "
            f"{(a.box[3] - a.box[1]) / record.height:.6f}"
            for a in record.truth
        ]
        write(tmp_path, {stem: "\n".join(rows)})
        (tmp_path / "images" / f"{stem}.png").unlink()
        (tmp_path / "images" / record.file_name).write_bytes(record.path.read_bytes())
        known[f"images/{record.file_name}"] = record
    found = read(tmp_path, classes=held.classes)
    assert len(found.records) == 8
    assert not found.problems
    for record in found.records:
        expected = known[record.file_name].truth
        assert [a.label for a in record.truth] == [a.label for a in expected]
        boxes = np.array([a.box for a in expected])
        np.testing.assert_allclose([a.box for a in record.truth], boxes, atol=0.01)
        assert all(isinstance(a, Annotation) for a in record.truth)
