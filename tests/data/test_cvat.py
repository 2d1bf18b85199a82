"""CVAT's XML: shapes, labels, subsets, and what is wrong with them."""

import numpy as np
import pytest
import tiny_sets
from pycocotools import mask as coco_mask

from detjax.data.formats import cvat
from detjax.errors import UserError

BOX = '<box label="cat" occluded="1" xtl="10" ytl="10" xbr="30" ybr="20" z_order="0"/>'
POLYGON = '<polygon label="dog" points="{}"{}></polygon>'
SQUARE = "10.0,10.0;30.0,10.0;30.0,30.0;10.0,30.0"


def labels(*names, parent=""):
    extra = f"<parent>{parent}</parent>" if parent else ""
    attribute = "<attributes><attribute><name>colour</name></attribute></attributes>"
    return "".join(
        f"<label><name>{n}</name><type>any</type>{attribute}{extra}</label>"
        for n in names
    )


def write(folder, shapes, head=None, name="annotations.xml", subset=None):
    """A file of images of 64 x 48, {name: shapes}, and images/."""
    of = "" if subset is None else f' subset="{subset}"'
    images = ""
    for number, (image, held) in enumerate(shapes.items()):
        tiny_sets.write_image(folder / "images" / image)
        images += f'<image id="{number}" name="{image}"{of} width="64" height="48">'
        images += f"{held}</image>\n"
    head = labels("dog", "cat") if head is None else head
    path = folder / name
    path.write_text(
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>'
        f"<meta><task><labels>{head}</labels></task></meta>{images}</annotations>"
    )
    return path


def read(path, **arguments):
    return cvat.read_splits(root=path, splits={"train": "*"}, **arguments)["train"]


def pixels(annotation):
    return coco_mask.decode({"size": [48, 64], "counts": annotation.rle})


def test_boxes_polygons_and_masks(tmp_path):
    mask = np.zeros((4, 6), np.uint8)
    mask[1:, 2:5] = 1
    runs = "8, 3, 3, 3, 3, 3, 1"
    attributes = '<attribute name="is_crowd">true</attribute>'
    shapes = {
        "a.png": BOX
        + POLYGON.format(SQUARE, "")
        + f'<mask label="cat" rle="{runs}" left="3" top="5" width="6" height="4">'
        + attributes
        + "</mask>",
        "b.png": "",
    }
    found = read(write(tmp_path, shapes))
    assert not found.problems
    assert found.classes == ("dog", "cat")
    box, polygon, masked = found.records[0].truth
    assert (box.box, box.label, box.rle) == ((10, 10, 30, 20), 1, None)
    assert (polygon.box, polygon.area, polygon.label) == ((10, 10, 30, 30), 400, 0)
    expected = np.zeros((48, 64), np.uint8)
    expected[5:9, 3:9] = mask
    np.testing.assert_array_equal(pixels(masked), expected)
    assert (masked.crowd, box.crowd) == (True, False)
    assert found.records[1].truth == []


def test_turned_boxes_and_ellipses(tmp_path):
    turned = BOX.replace('xtl="10"', 'rotation="90" xtl="10"')
    ellipse = '<ellipse label="dog" cx="32" cy="24" rx="20" ry="10" rotation="90"/>'
    box, round_ = read(write(tmp_path, {"a.png": turned + ellipse})).records[0].truth
    # 20 x 10 about (20, 15), a quarter turn on.
    np.testing.assert_allclose(box.box, (15, 5, 25, 25), atol=1e-6)
    assert box.area == 200
    np.testing.assert_allclose(round_.box, (22, 4, 42, 44), atol=1e-6)
    assert round_.area == pytest.approx(np.pi * 200, rel=0.03)


def test_a_turn_is_clockwise_as_seen(tmp_path):
    turned = BOX.replace('xtl="10"', 'rotation="30" xtl="10"')
    (box,) = read(write(tmp_path, {"a.png": turned})).records[0].truth
    held = pixels(box)
    # The right end goes down.
    assert held[19, 27]
    assert not held[11, 28]


def test_groups_are_one_object(tmp_path):
    right = "40,10;50,10;50,20;40,20"
    shapes = POLYGON.format(SQUARE, ' group_id="4"') + BOX
    shapes += POLYGON.format(right, ' group_id="4"')
    whole, box = read(write(tmp_path, {"a.png": shapes})).records[0].truth
    assert (whole.box, whole.area) == ((10, 10, 50, 30), 500)
    assert box.box == (10, 10, 30, 20)


def test_skeletons_are_keypoints(tmp_path):
    head = labels("person", "ball") + labels("nose", "hand", "foot", parent="person")
    points = "".join(
        f'<points label="{n}" outside="{o}" occluded="{c}" points="{p}"></points>'
        for n, o, c, p in (
            ("hand", 0, 1, "20.0,30.0"),
            ("nose", 0, 0, "10.0,12.0"),
            ("foot", 1, 0, "0,0"),
        )
    )
    shapes = {"a.png": f'<skeleton label="person">{points}</skeleton>'}
    found = read(write(tmp_path, shapes, head))
    assert not found.problems
    assert found.classes == ("person", "ball")
    assert found.keypoints == ("nose", "hand", "foot")
    (one,) = found.records[0].truth
    expected = [[10, 12, 2], [20, 30, 1], [0, 0, 0]]
    np.testing.assert_array_equal(one.keypoints, expected)
    assert one.box == (10, 12, 20, 30)


@pytest.mark.parametrize(
    ("made", "reason", "words"),
    [
        ('<polyline label="cat" points="1,2;3,4"/>', "unsupported shape", "a polyline"),
        ('<tag label="cat"/>', "unsupported shape", "is a tag"),
        (BOX.replace("cat", "eel"), "unknown class", "'eel', which is not among"),
        (BOX.replace('xbr="30"', 'xbr="x"'), "malformed shape", "xbr 'x'"),
        (BOX.replace('xbr="30"', 'xbr="10"'), "malformed shape", "zero width"),
        (BOX.replace('xbr="30"', 'xbr="90"'), "outside the image", "26 pixels outside"),
        (POLYGON.format("1,1;2,2", ""), "malformed shape", "polygon of 2 points"),
        (POLYGON.format("1,1;2;3", ""), "malformed shape", "not x,y;x,y"),
        (POLYGON.format("1,1;2,nan;3,3", ""), "malformed shape", "not finite"),
        (
            '<mask label="cat" rle="3, 3" left="0" top="0" width="3" height="3"/>',
            "malformed shape",
            "runs add up to 6",
        ),
        (
            '<mask label="cat" rle="3, 6" left="62" top="0" width="3" height="3"/>',
            "malformed shape",
            "outside the 64 x 48 image",
        ),
        (
            '<mask label="cat" rle="a" left="0" top="0" width="3" height="3"/>',
            "malformed shape",
            "not a list of whole numbers",
        ),
    ],
)
def test_a_bad_shape_is_named(tmp_path, made, reason, words):
    found = read(write(tmp_path, {"a.png": BOX + made}))
    (problem,) = found.problems
    assert problem.reason == reason
    assert words in str(problem)
    assert str(problem).startswith("shape 2 of image 1 (annotations.xml of a.png) ")
    assert len(found.records[0].truth) == 1


def test_subsets_are_splits(tmp_path):
    text = ""
    for subset, image in (("Train", "a.png"), ("Validation", "b.png")):
        tiny_sets.write_image(tmp_path / "images" / subset / image)
        text += f'<image id="1" name="{image}" subset="{subset}">{BOX}</image>'
    path = tmp_path / "annotations.xml"
    path.write_text(f"<annotations>{text}</annotations>")
    found = cvat.read_splits(root=tmp_path)
    assert {s: [r.id for r in d.records] for s, d in found.items()} == {
        "train": [1],
        "val": [2],
    }
    assert found["train"].classes == ("cat",)  # without a head
    some = cvat.read_splits(root=path, splits={"test": "Train"})
    assert len(some["test"].records) == 1
    assert len(read(path).records) == 2
    with pytest.raises(UserError, match=r"no subset 'x' \(there: Train, Validation\)"):
        cvat.catalogues(root=path, splits={"test": "x"})


def test_a_file_for_each_split(tmp_path):
    write(tmp_path, {"a.png": BOX}, name="t.xml")
    write(tmp_path, {"b.png": ""}, name="v.xml")
    splits = {"train": "t.xml", "val": "v.xml"}
    found = cvat.read_splits(root=tmp_path, splits=splits)
    assert [len(d.records) for d in found.values()] == [1, 1]
    assert len(cvat.digests(root=tmp_path, splits=splits)) == 2
    with pytest.raises(UserError, match="no split is named"):
        cvat.catalogues(root=tmp_path / "t.xml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<annotation/>", "is not CVAT's XML: it begins with <annotation>"),
        ("<annotations><track/></annotations>", "is of a video"),
        ("<annotations></annotations>", "has no image"),
        ("<annotations><image", "cannot be read as XML"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><annotations/>', "has a <!DOCTYPE"),
        ("", "cannot be read as XML"),
    ],
)
def test_files_that_are_something_else(tmp_path, text, words):
    path = tmp_path / "annotations.xml"
    path.write_text(text)
    with pytest.raises(UserError, match=words) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_places_in_a_file_of_another_encoding(tmp_path):
    """Places are bytes, and what is between images is no part of any."""
    for name in ("ä.png", "ö.png"):
        tiny_sets.write_image(tmp_path / "images" / name)
    text = (
        '<?xml version="1.0" encoding="{}"?><annotations><!-- é > -->'
        '<image name="ä.png" attribute="1>2"/>\n<!-- <image> -->'
        f'<image name="ö.png">{BOX}</image><other/></annotations>'
    )
    for encoding in ("utf-8", "utf-16", "iso-8859-1"):
        path = tmp_path / "annotations.xml"
        path.write_bytes(text.format(encoding).encode(encoding))
        found = read(path, classes=("cat",))
        assert not found.problems, encoding
        assert [len(r.truth) for r in found.records] == [0, 1]


def test_missing_repeated_and_outside_images(tmp_path):
    path = write(tmp_path, {"a.png": BOX, "b.png": ""})
    text = path.read_text()
    text = text.replace('name="b.png"', 'name="a.png"')
    text = text.replace(
        "</annotations>", '<image name="../x.png"/><image name="c.png"/></annotations>'
    )
    path.write_text(text)
    found = read(path)
    assert [p.reason for p in found.problems] == [
        "listed twice",
        "file outside the folder",
        "missing image",
    ]
