"""LabelMe's JSON files: shapes, images, and what is wrong with them."""

import base64
import json

import cv2
import numpy as np
import pytest
import tiny_sets
from pycocotools import mask as coco_mask

from detjax.data.formats import labelme
from detjax.errors import UserError

SQUARE = [[10, 10], [30, 10], [30, 30], [10, 30]]


def shape(label="cat", kind="polygon", points=SQUARE, **more):
    return {"label": label, "shape_type": kind, "points": points, **more}


def png(mask):
    return base64.b64encode(cv2.imencode(".png", mask)[1].tobytes()).decode()


def write(folder, shapes, name="a", image=True, **more):
    """An image of 64 x 48 and its file."""
    folder.mkdir(parents=True, exist_ok=True)
    if image:
        tiny_sets.write_image(folder / f"{name}.png")
    held = {
        "version": "5.4.1",
        "flags": {},
        "shapes": shapes,
        "imagePath": f"{name}.png",
        "imageData": None,
        "imageHeight": 48,
        "imageWidth": 64,
        **more,
    }
    (folder / f"{name}.json").write_text(json.dumps(held))
    return folder


def read(folder, **arguments):
    return labelme.read_splits(splits={"train": folder}, **arguments)["train"]


def pixels(annotation):
    return coco_mask.decode({"size": [48, 64], "counts": annotation.rle})


def test_polygons_rectangles_circles_and_masks(tmp_path):
    mask = np.zeros((5, 9), np.uint8)
    mask[1:4, 2:8] = 1
    shapes = [
        shape(),
        shape("dog", "rectangle", [[30, 40], [10, 20]], flags={"difficult": True}),
        shape("dog", "circle", [[40, 24], [40, 34]]),
        shape("ant", "mask", [[3, 4], [11, 8]], mask=png(mask)),
        shape("ant", "mask", [[3, 4], [12, 9]], mask=png(mask * 255)),
    ]
    found = read(write(tmp_path, shapes))
    assert not found.problems
    assert found.classes == ("ant", "cat", "dog")
    polygon, box, circle, one, other = found.records[0].truth
    assert (polygon.box, polygon.area, polygon.label) == ((10, 10, 30, 30), 400, 1)
    assert pixels(polygon)[10:30, 10:30].all()
    assert (box.box, box.rle, box.difficult) == ((10, 20, 30, 40), None, True)
    np.testing.assert_allclose(circle.box, (30, 14, 50, 34), atol=0.02)
    assert circle.area == pytest.approx(np.pi * 100, rel=0.03)
    assert one.box == other.box == (5, 5, 11, 8)
    expected = np.zeros((48, 64), np.uint8)
    expected[4:9, 3:12] = mask
    np.testing.assert_array_equal(pixels(one), expected)


def test_shapes_of_a_group_are_one_object(tmp_path):
    right = [[40, 10], [50, 10], [50, 20], [40, 20]]
    shapes = [
        shape(group_id=1),
        shape("dog", group_id=1),
        shape(points=right, group_id=1),
        shape(points=right),
    ]
    first, second, third = read(write(tmp_path, shapes)).records[0].truth
    assert (first.box, first.area) == ((10, 10, 50, 30), 500)
    assert pixels(first).sum() == 500
    assert second.box == (10, 10, 30, 30)
    assert third.box == (40, 10, 50, 20)
    assert [a.id % 1_000_000 for a in (first, second, third)] == [1, 2, 4]


@pytest.mark.parametrize(
    ("made", "reason", "words"),
    [
        (shape(kind="linestrip"), "unsupported shape", "linestrip, which covers no"),
        (shape(kind="point", points=[[1, 1]]), "unsupported shape", "is a point"),
        (shape(points=SQUARE[:2]), "malformed shape", "polygon of 2 points"),
        (shape(kind="rectangle"), "zero area", "zero width"),
        (shape(kind="circle"), "malformed shape", "circle of 4 points, not 2"),
        (shape(points=[["a", 1]] * 3), "malformed shape", "not pairs of numbers"),
        (shape(points=[[1, 1], [2, 2], [70, 9]]), "outside the image", "6 pixels"),
        (shape(kind="mask", points=SQUARE[:2]), "malformed shape", "has no mask"),
        (shape(kind="mask", points=SQUARE[:2], mask="?"), "malformed shape", "base64"),
        (shape(label=3), "unknown class", "has class '3'"),
        ("cat", "malformed shape", "not a shape"),
        (shape("eel"), "unknown class", "'eel', which is not among cat, dog"),
    ],
)
def test_a_bad_shape_is_named(tmp_path, made, reason, words):
    if reason == "zero area":
        made = {**made, "points": [[5, 5], [5, 9]]}
    folder = write(tmp_path, [shape(), made])
    found = read(folder, classes=("cat", "dog"))
    (problem,) = found.problems
    assert problem.reason == reason
    assert words in str(problem)
    assert str(problem).startswith("shape 2 of image 1 (a.json of a.png) ")
    assert len(found.records[0].truth) == 1


def test_masks_that_do_not_fit_their_points(tmp_path):
    mask = shape(
        kind="mask", points=[[3, 4], [11, 8]], mask=png(np.ones((9, 9), np.uint8))
    )
    (problem,) = read(write(tmp_path, [mask])).problems
    assert "has a mask of 9 x 9 pixels between [3, 4] and [11, 8]" in str(problem)


def test_images_are_found_where_they_are(tmp_path):
    inside = tiny_sets.write_image(tmp_path / "x.png").read_bytes()
    data = base64.b64encode(inside).decode()
    write(tmp_path / "1", [shape()])
    write(tmp_path / "2", [shape()], image=False, imageData=data)
    tiny_sets.write_image(tmp_path / "3" / "images" / "a.png")
    write(
        tmp_path / "3" / "json", [shape()], image=False, imagePath="..\\images\\a.png"
    )
    write(tmp_path / "4", [shape()], imagePath="renamed.png")
    for folder in "124":
        assert len(read(tmp_path / folder).records) == 1, folder
    whole = read(tmp_path / "3")
    assert whole.records[0].file_name == "images/a.png"
    (problem,) = read(tmp_path / "3" / "json").problems
    assert "outside the folder, ../images/a.png; allow it" in str(problem)
    assert read(tmp_path / "3" / "json", allow_outside=True).records
    assert read(tmp_path / "3" / "json", images=tmp_path / "3" / "images").records


def test_files_that_are_something_else(tmp_path):
    write(tmp_path, [shape()])
    (tmp_path / "b.json").write_text("{")
    (tmp_path / "c.json").write_text('{"images": []}')
    write(tmp_path, [shape()], "d", image=False)
    write(tmp_path, [shape()], "e", imageHeight=64, imageWidth=48)
    tiny_sets.write_image(tmp_path / "f.png")
    found = read(tmp_path)
    reasons = [p.reason for p in found.problems]
    assert reasons == [
        "not LabelMe",
        "not LabelMe",
        "missing image",
        "swapped height and width",
    ]
    held = labelme.catalogues(splits={"train": tmp_path})["train"]
    assert held.notes
    assert "1 pictures in" in held.notes[0]
    assert "f.png" in held.notes[0]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no JSON file"):
        read(tmp_path / "empty")


def test_digests_follow_the_files(tmp_path):
    folder = write(tmp_path, [shape()])
    before = labelme.digests(splits={"all": "."}, root=folder)
    write(tmp_path, [shape("dog")])
    assert labelme.digests(splits={"all": "."}, root=folder) != before
