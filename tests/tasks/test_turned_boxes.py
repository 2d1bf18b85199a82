"""Boxes at an angle and of whole objects, from records to metrics and drawings."""

import jax
import numpy as np
import pytest
from infos import info

from detjax.data import rectangles, rle
from detjax.data.frames import Seen
from detjax.data.records import Annotation, Record
from detjax.errors import UserError
from detjax.ops import rotated
from detjax.tasks import TASKS
from detjax.tasks.detection import drawing, merging
from detjax.tasks.detection.restore import Found, entries, restore
from detjax.types import Detections

SIZE = 60, 80
BOXES = np.array([[30, 25, 36, 10, 0.6], [60, 40, 24, 8, -0.9]])
INFO = info(("a",), category_ids=(7,), has_amodal=True)
WHOLES = np.array([[10, 5, 50, 48], [48, 28, 78, 58.0]])


def record(corners=False):
    made = Record(3, "a.png", *SIZE)
    for i, (box, whole) in enumerate(zip(BOXES, WHOLES, strict=True)):
        four = rectangles.corners(box[None])[0]
        code = rle.from_polygons([four.ravel().tolist()], SIZE)
        low, high = four.min(axis=0), four.max(axis=0)
        made.truth.append(
            Annotation(
                i + 1,
                (*low.tolist(), *high.tolist()),
                0,
                float(box[2] * box[3]),
                rle=code,
                amodal=tuple(whole.tolist()),
                corners=four.astype(np.float32) if corners else None,
            )
        )
    return made


def overlaps(one, other):
    return np.asarray(rotated.paired_iou(np.float32(one), np.float32(other)))


@pytest.mark.parametrize(("corners", "least"), [(True, 0.999), (False, 0.8)])
def test_targets_are_turned_with_their_picture(corners, least):
    task, held = TASKS["detection"], record(corners)
    made = task.targets(INFO, mask_stride=None, oriented=True, amodal=True)
    objects, _ = made.empty(1, SIZE)
    one = jax.tree.map(lambda x: x[0], objects)
    cos, sin = np.cos(0.3), np.sin(0.3)
    matrix = np.array([[cos, -sin, 12.0], [sin, cos, -6], [0, 0, 1]])
    made.fill(one, [Seen(made.read(held), matrix, np.array([0, 0, 80, 60]))], SIZE)
    count = int(one.valid.sum())
    assert count == 2
    centres = BOXES[:, :2] @ matrix[:2, :2].T + matrix[:2, 2]
    expected = np.column_stack([centres, BOXES[:, 2:4], BOXES[:, 4] + 0.3])
    assert (overlaps(one.oriented[:2], expected) > least).all()
    # The whole is that around the turned corners of what was known.
    low, high = WHOLES[0, :2], WHOLES[0, 2:]
    four = np.array([low, [high[0], low[1]], high, [low[0], high[1]]])
    moved = four @ matrix[:2, :2].T + matrix[:2, 2]
    np.testing.assert_allclose(
        one.amodal[0], [*moved.min(axis=0), *moved.max(axis=0)], rtol=1e-5
    )
    made.clear(one)
    assert not one.oriented.any() and not one.amodal.any()


def filled(held, matrix, window, size=SIZE):
    """The objects of a picture that `window` of the input shows."""
    task = TASKS["detection"]
    made = task.targets(INFO, mask_stride=None, oriented=True, amodal=True)
    objects, _ = made.empty(1, size)
    one = jax.tree.map(lambda x: x[0], objects)
    made.fill(one, [Seen(made.read(held), matrix, np.array(window))], size)
    return one


@pytest.mark.parametrize("corners", [True, False])
def test_what_a_window_cuts_off_is_no_part_of_them(corners):
    """The usual box, that at an angle and that of the whole end where it ends."""
    one = filled(record(corners), np.eye(3), [0, 0, 38, 60])
    assert one.valid.sum() == 1
    turned, kept = one.oriented[0], rectangles.corners(one.oriented[:1])[0]
    assert one.boxes[0, 2] == 38
    # The rest of the rectangle: less long, as wide, at its angle.
    assert 20 < turned[2] < 34
    assert (np.abs(turned[3:] - [10, 0.6]) < [2, 0.12]).all()
    assert kept[:, 0].min() > 9
    assert kept[:, 0].max() < 45
    np.testing.assert_allclose(one.amodal[0], [10, 5, 38, 48])
    # Seen as a whole it is as it was, though the whole of it lies beyond.
    held = record(corners)
    held.truth[0].amodal = (-10.0, 5.0, 50.0, 48.0)
    one = filled(held, np.eye(3), [0, 0, 80, 60])
    assert overlaps(one.oriented[:1], BOXES[:1])[0] > (0.999 if corners else 0.8)
    np.testing.assert_allclose(one.amodal[0], [-10, 5, 50, 48])


@pytest.mark.parametrize("corners", [True, False])
def test_what_is_learnt_of_a_stretched_picture_comes_back(corners):
    """Targets of 48 x 96 pixels, answered as they are: the rectangles of before."""
    matrix = np.diag([96 / 80, 48 / 60, 1.0])
    one = filled(record(corners), matrix, [0, 0, 96, 48], (48, 96))
    answers = Detections(
        one.boxes[:2],
        np.float32([0.9, 0.8]),
        np.int32([0, 0]),
        np.ones(2, bool),
        oriented=one.oriented[:2],
    )
    back = restore(answers, matrix[:2], SIZE, (48, 96))
    codes, given = zip(
        *((a.rle, a.corners) for a in record(corners).truth), strict=True
    )
    known = rectangles.of_codes(codes, given, SIZE)
    assert (overlaps(back.oriented, known) > 0.999).all()


def test_data_sets_without_them_say_so():
    for settings, lacking in (
        ({"oriented": True}, {"has_masks": False}),
        ({"amodal": True}, {"has_amodal": False}),
    ):
        with pytest.raises(UserError, match=f"data.{next(iter(settings))}=False"):
            TASKS["detection"].targets(
                INFO._replace(**lacking), mask_stride=None, **settings
            )


def answered():
    """The truth as it is detected, in an input twice as large."""
    turned = np.column_stack([2 * BOXES[:, :4], BOXES[:, 4]])
    return Detections(
        np.asarray(rotated.hull(np.float32(turned))),
        np.float32([0.9, 0.8]),
        np.int32([0, 0]),
        np.ones(2, bool),
        oriented=np.float32(turned),
        amodal=np.float32(2 * WHOLES),
    )


def found():
    affine = np.float32([[2, 0, 0], [0, 2, 0]])
    return restore(answered(), affine, SIZE, (120, 160))


def test_answers_come_back_to_the_picture_and_to_rows():
    back = found()
    assert (overlaps(back.oriented, BOXES) > 0.99).all()
    np.testing.assert_allclose(back.amodal, WHOLES, atol=1e-4)
    first = entries(back, 5, (7,))[0]
    np.testing.assert_allclose(first["oriented"], back.oriented[0])
    np.testing.assert_allclose(first["amodal"], [10, 5, 40, 43], atol=1e-4)
    sure = TASKS["detection"].confident(back, 0.85)
    assert len(sure.oriented) == len(sure.amodal) == 1


def test_they_are_judged_beside_the_usual_boxes():
    """What is exact has an AP of 1, and upright boxes have less of the same truth."""
    meter = TASKS["detection"].meter([record(True)], INFO, [3], baselines=True)
    meter.add(0, found())
    got = meter.result(meter.parts)
    assert got["oriented/AP"] == got["amodal/AP"] == got["bbox/AP"] == 1
    assert got["upright/AP"] < 0.5
    assert got["visible/AP"] < 1
    assert {*got} <= {*meter.names()}
    plain = TASKS["detection"].meter([record(True)], INFO, [3])
    plain.add(0, found())
    assert not any(name.startswith("upright") for name in plain.result(plain.parts))
    rows = [*meter.files(meter.parts)["results.json"]()]
    np.testing.assert_allclose(rows[0]["oriented"], found().oriented[0])
    np.testing.assert_allclose(rows[0]["amodal"], [10, 5, 40, 43], atol=1e-4)


def test_mirrored_and_enlarged_answers_come_back():
    batched = jax.tree.map(lambda x: np.asarray(x)[None], answered())
    twice = merging.mirror(merging.mirror(batched, (120, 160), ()), (120, 160), ())
    assert (overlaps(twice.oriented[0], batched.oriented[0]) > 0.999).all()
    np.testing.assert_allclose(twice.amodal, batched.amodal, atol=1e-4)
    larger = merging.rescale(batched, (2.0, 2.0))
    np.testing.assert_allclose(
        larger.oriented[..., :4], 2 * batched.oriented[..., :4], rtol=1e-5
    )
    np.testing.assert_allclose(larger.amodal, 2 * batched.amodal)


def test_frames_lie_where_they_are_told():
    """Drawn pixels are on the turned frame, and on the dashes of the whole's."""
    image = np.full((*SIZE, 3), 255, np.uint8)
    only = Found(
        *(np.array([[0, 0, 1, 1.0]]), np.array([np.nan]), np.array([0]), None),
        size=SIZE,
        oriented=BOXES[:1],
        amodal=WHOLES[:1],
    )
    drawn = drawing.draw(image, only, ["a"], least_side=0)
    dark = drawn.astype(int).sum(axis=-1) < 500
    four = rectangles.corners(BOXES[:1])[0]
    middles = (four + np.roll(four, -1, axis=0)) / 2
    for x, y in np.rint(middles).astype(int):
        assert dark[y - 1 : y + 2, x - 1 : x + 2].any()
    top = dark[5, 12:48]
    assert top.any() and not top.all()


def test_truth_is_drawn_at_its_angle():
    shown = drawing.truth(record(True))
    assert (overlaps(shown.oriented, BOXES) > 0.999).all()
    assert drawing.truth(record()).oriented is None


def test_what_lies_side_by_side_at_an_angle_is_not_merged():
    """Upright boxes overlap by more than half, and the boxes themselves not at all."""
    turned = np.float32([[50, 50, 60, 8, np.pi / 4], [58, 42, 60, 8, np.pi / 4]])
    one = Detections(
        np.asarray(rotated.hull(turned)),
        np.float32([0.9, 0.8]),
        np.int32([0, 0]),
        np.ones(2, bool),
        oriented=turned,
    )
    batched = jax.tree.map(lambda x: np.asarray(x)[None], one)
    assert merging.merge([batched, batched], 0.5).valid.tolist() == [[True, True]]
    plain = batched.replace(oriented=None)
    assert merging.merge([plain, plain], 0.5).valid.tolist() == [[True, False]]


def test_a_split_without_a_detection_has_metrics_of_zero():
    meter = TASKS["detection"].meter([record(True)], INFO, [3], baselines=True)
    whole = found()
    rows = {k: getattr(whole, k)[:0] for k in ("boxes", "scores", "labels")}
    meter.add(
        0, whole._replace(oriented=whole.oriented[:0], amodal=whole.amodal[:0], **rows)
    )
    got = meter.result(meter.parts)
    for kind in ("oriented", "upright", "amodal", "visible"):
        assert got[f"{kind}/AP"] == 0


def test_detections_in_a_crowd_count_neither_way():
    """And the size of a detection is that of its box at its angle."""
    held = record(True)
    four = rectangles.corners(np.array([[30.0, 25, 50, 40, 0.1]]))[0]
    code = rle.from_polygons([four.ravel().tolist()], SIZE)
    low, high = four.min(axis=0), four.max(axis=0)
    held.truth[0] = Annotation(
        *(1, (*low.tolist(), *high.tolist()), 0, 2000.0, True),
        rle=code,
        corners=four.astype(np.float32),
    )
    inside = np.array([[30, 25, 12, 8, 0.1], [*BOXES[1]]])
    only = Found(
        np.asarray(rotated.hull(np.float32(inside)), float),
        np.array([0.9, 0.8]),
        np.array([0, 0]),
        None,
        size=SIZE,
        oriented=inside,
    )
    meter = TASKS["detection"].meter([held], INFO, [3])
    meter.add(0, only)
    got = meter.result(meter.parts)
    assert got["oriented/AP"] == got["bbox/AP"] == 1
    assert got["oriented/APs"] == 1
