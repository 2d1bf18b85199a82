"""Label maps from a record to targets and answers, and back to the picture."""

import io

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from infos import info
from PIL import Image
from tasks.pixel_cases import CLASSES, records, scene
from tensorflow_datasets.core import example_serializer

from detjax.data import features, frames, label_maps, rle
from detjax.data.example import Prepare
from detjax.data.features import Schema
from detjax.data.frames import Seen
from detjax.data.records import Record, Unreadable
from detjax.errors import UserError
from detjax.tasks import segmentation
from detjax.tasks.segmentation import Found, palette, storage
from detjax.tasks.segmentation.drawing import legend, share, shortened
from detjax.types import LabelScores

TASK = segmentation.TASK


def record(labels, valid=None, classes=3):
    h, w = labels.shape
    png = cv2.imencode(".png", np.full((h, w, 3), 100, np.uint8))[1].tobytes()
    valid = np.ones((h, w), bool) if valid is None else valid
    truth = label_maps.encode(labels, valid, classes)
    return Record(1, "1.png", h, w, image=png, truth=truth)


@pytest.mark.parametrize("classes", [3, 300])
def test_examples_are_those_of_tfds_and_come_back(classes):
    schema = Schema(tuple(f"c{i}" for i in range(classes)))
    labels = np.random.default_rng(0).integers(0, classes, (6, 8)).astype(np.uint16)
    one = record(labels, classes=classes)
    ours = features.encode(one, one.image, schema, TASK)
    assert features.decode(ours, TASK).truth == one.truth
    named = features.features(schema, TASK)
    held = {
        "image": io.BytesIO(one.image),
        "image_id": 1,
        "file_name": "1.png",
        "height": 6,
        "width": 8,
        "label_map": io.BytesIO(one.truth),
    }
    serializer = example_serializer.ExampleSerializer(named.get_serialized_info())
    theirs = serializer.serialize_example(named.encode_example(held))
    got, valid = storage.read(features.decode(theirs, TASK), classes)
    np.testing.assert_array_equal(got, labels)
    assert valid.all()


def test_faults_are_known_by_the_first_bytes_and_labels_once_they_are_read():
    one = record(np.full((6, 8), 2, np.uint8))
    assert TASK.fault(one.truth, 3) is None
    assert "no PNG file" in TASK.fault(b"JFIF", 3)
    assert "8 bits" in TASK.fault(one.truth, 300)
    coloured = cv2.imencode(".png", np.zeros((6, 8, 3), np.uint8))[1].tobytes()
    assert "not grey" in TASK.fault(coloured, 3)
    with pytest.raises(Unreadable, match="label 2, and there are 2 classes"):
        storage.read(one, 2)
    steps = Prepare((12, 16), TASK.targets(info(("a", "b"))))
    with pytest.raises(UserError, match=r"1\.png \(image 1\): its label map has label"):
        steps(one)


def test_facts_and_regions_are_of_the_classes_that_are_there():
    labels = np.zeros((6, 8), np.uint8)
    labels[1:3, 2:7] = 2
    valid = np.ones(labels.shape, bool)
    valid[5] = False
    one = record(labels, valid)
    facts = TASK.facts(one.truth)
    assert facts.labels.tolist() == [0, 2]
    assert facts.counts["pixels ignored"] == 8
    classes, boxes = TASK.regions(one)
    assert classes.tolist() == [0, 2]
    assert boxes.tolist() == [[0, 0, 8, 5], [2, 1, 7, 3]]
    nothing = TASK.facts(record(labels, np.zeros(labels.shape, bool)).truth)
    assert nothing.counts["images without a class"] == 1


@pytest.mark.parametrize(("classes", "kind"), [(3, np.uint8), (300, np.uint16)])
def test_facts_of_a_large_map_are_counted_in_pieces(classes, kind, monkeypatch):
    shape = 300, 1000  # more than one piece, the last of which is not full
    labels = np.random.default_rng(0).integers(0, classes, shape).astype(kind)
    valid = np.random.default_rng(1).random(shape) < 0.9
    file = label_maps.encode(labels, valid, classes)
    calls, count = [], np.bincount
    monkeypatch.setattr(
        np, "bincount", lambda *a, **k: calls.append(1) or count(*a, **k)
    )
    facts = TASK.facts(file)
    assert len(calls) == 2
    assert facts.labels.tolist() == [*range(classes)]
    np.testing.assert_array_equal(facts.pixels, count(labels[valid]))
    assert facts.counts["pixels ignored"] == (~valid).sum()


def test_targets_move_with_the_picture_and_what_is_outside_is_not_valid():
    _, labels, valid, _ = scene(0)
    one = record(labels, valid)
    made = TASK.targets(info(CLASSES))
    room, _ = made.empty(1, (96, 160))
    target = jax.tree.map(lambda x: x[0], room)
    truth = made.read(one)
    # Twice as large, 10 pixels to the right.
    matrix = frames.scaling(2, 2, 10, 0)
    counted = made.fill(
        target, [Seen(truth, matrix, np.array([0, 0, 160, 96]))], (96, 160)
    )
    twice = np.kron(labels, np.ones((2, 2), np.uint8))
    known = np.kron(valid, np.ones((2, 2), bool))
    np.testing.assert_array_equal(target.valid[:, 10:138], known)
    np.testing.assert_array_equal(target.labels[:, 10:138][known], twice[known])
    assert not target.valid[:, :10].any()
    assert not target.valid[:, 138:].any()
    assert not target.labels[~target.valid].any()
    assert counted == {
        "pixels with a class": int(known.sum()),
        "pixels ignored": int((~known).sum()),
    }
    made.clear(target)
    assert not target.valid.any()


def test_several_pictures_fill_their_windows_and_blends_are_refused():
    made = TASK.targets(info(CLASSES), class_weights=(1.0, 2.0, 0.5))
    room, _ = made.empty(2, (20, 20))
    assert room.weights.tolist() == [[1, 2, 0.5]] * 2
    target = jax.tree.map(lambda x: x[1], room)
    first = made.read(record(np.full((10, 10), 1, np.uint8)))
    second = made.read(record(np.full((30, 30), 2, np.uint8)))
    seen = [
        Seen(first, np.eye(3), np.array([0, 0, 12, 12])),
        Seen(second, np.eye(3), np.array([12, 12, 20, 20])),
    ]
    made.fill(target, seen, (20, 20))
    assert (target.labels[:10, :10] == 1).all()
    assert (target.labels[12:, 12:] == 2).all()
    assert target.valid.sum() == 100 + 64
    blend = [Seen(first, np.eye(3), np.array([0, 0, 20, 20]), 0.5)] * 2
    with pytest.raises(UserError, match="mixup and cutmix"):
        made.fill(target, blend, (20, 20))
    target.weights[:] = 0
    made.clear(target)
    assert target.weights.tolist() == [1, 2, 0.5]


def test_settings_and_warnings_are_sentences():
    with pytest.raises(UserError, match="class_weights has 2 numbers"):
        TASK.targets(info(CLASSES), class_weights=(1.0, 2.0))
    assert TASK.warnings({"pixels with a class": 5.0, "pixels ignored": 1.0}) == {}
    [said] = TASK.warnings({"pixels with a class": 0, "pixels ignored": 9.0}).values()
    assert "all are ignored" in said


def scores(*shape, seed=0, size=(24, 32), corners=False):
    logits = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return LabelScores(jnp.asarray(logits), size, corners)


@pytest.mark.parametrize("corners", [False, True])
def test_mirrored_twice_and_merged_it_is_the_same(corners):
    answer = scores(2, 6, 8, 3, corners=corners)
    mirrored = TASK.mirror(answer, answer.size, ())
    plain, turned = (TASK.shrink(x).labels for x in (answer, mirrored))
    np.testing.assert_array_equal(plain, turned[:, :, ::-1])
    both = TASK.merge([answer, TASK.mirror(mirrored, answer.size, ())], 0.5)
    np.testing.assert_allclose(
        jax.nn.softmax(both.logits), jax.nn.softmax(answer.logits), atol=1e-6
    )


def test_answers_of_several_sizes_are_their_mean_probability():
    fine, coarse = scores(1, 12, 16, 3), scores(1, 6, 8, 3, seed=1, size=(12, 16))
    coarse = TASK.rescale(coarse, (2.0, 2.0))
    assert coarse.size == (24, 32)
    merged = TASK.merge([coarse, fine], 0.5)
    assert merged.logits.shape == fine.logits.shape
    found = jax.nn.softmax(merged.logits)
    assert float(jnp.abs(found.sum(-1) - 1).max()) < 1e-5
    alike = scores(1, 6, 8, 3, seed=1)
    again = TASK.merge([alike, scores(1, 6, 8, 3, seed=2)], 0.5)
    expected = sum(jax.nn.softmax(scores(1, 6, 8, 3, seed=s).logits) for s in (1, 2))
    np.testing.assert_allclose(jax.nn.softmax(again.logits), expected / 2, atol=1e-6)


def test_labels_come_back_to_the_pixels_of_the_picture():
    answer = jax.tree.map(lambda x: np.asarray(x[0]), TASK.shrink(scores(1, 24, 32, 3)))
    affine = np.float64([[2, 0, 4], [0, 2, 2]])  # the picture is 10 x 12 pixels
    found = TASK.restore(answer, affine, (10, 12), (24, 32))
    assert found.labels.shape == (10, 12)
    # Pixel (0, 0) has its centre at (5, 3) of the input.
    np.testing.assert_array_equal(found.labels, answer.labels[3:23:2, 5:29:2])
    np.testing.assert_array_equal(found.scores, answer.scores[3:23:2, 5:29:2])
    assert found.valid.all()
    sure = TASK.restore(answer, affine, (10, 12), (24, 32), 0.6)
    np.testing.assert_array_equal(sure.valid, found.scores >= 153)
    again = TASK.confident(found, 0.6)
    np.testing.assert_array_equal(again.valid, sure.valid)
    truth = TASK.truth(records("segmentation", 1)[0])
    assert TASK.confident(truth, 0.9) is truth


def test_entries_are_masks_with_shares_and_scores():
    labels = np.zeros((10, 20), np.uint8)
    labels[:, 15:] = 2
    valid = np.ones(labels.shape, bool)
    valid[0] = False
    chances = np.where(labels == 2, 255, 51).astype(np.uint8)
    rows = TASK.entries(Found(labels, valid, chances), 7, (10, 20, 30))
    assert [row["category_id"] for row in rows] == [10, 30]
    assert rows[0]["area_share"] == 135 / 200
    assert [row["score"] for row in rows] == [0.2, 1.0]
    np.testing.assert_array_equal(
        rle.decode(rows[1]["segmentation"]), (labels == 2) & valid
    )
    assert (
        TASK.entries(Found(labels, np.zeros_like(valid), chances), 7, (1, 2, 3)) == []
    )


def test_vocs_palette_is_known():
    got = palette.voc(22).tolist()
    assert got[:4] == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert got[15] == [192, 128, 128]
    assert got[20] == [0, 64, 128]
    assert len({tuple(colour) for colour in palette.voc(256).tolist()}) == 256


@pytest.mark.parametrize("count", [1, 2, 8, 9, 21, 150, 300])
@pytest.mark.parametrize("first", ["background", "thing"])
def test_classes_have_colours_of_their_own(count, first):
    names = [first, *(f"c{i}" for i in range(count - 1))]
    got = palette.palette(names)
    assert got.shape == (count, 3)
    if count < 256:
        assert len({tuple(colour) for colour in got.tolist()}) == count
    assert (got[0] == 0).all() == (first == "background")


@pytest.mark.parametrize("classes", [3, 255, 256])
def test_label_maps_are_files_with_a_palette(classes):
    names = [f"c{i}" for i in range(classes)]
    labels = np.arange(48, dtype=np.uint16).reshape(6, 8) % classes
    labels = labels.astype(label_maps.dtype(classes))
    valid = labels != 1
    [file] = TASK.files(Found(labels, valid), names).values()
    sheet = Image.open(io.BytesIO(file))
    held = np.asarray(sheet)
    assert (held[valid] == labels[valid]).all()
    assert (held[~valid] == (255 if classes < 256 else 65535)).all()
    if classes < 256:
        assert sheet.mode == "P"
        tints = np.array(sheet.getpalette()).reshape(-1, 3)[:classes]
        np.testing.assert_array_equal(tints, palette.palette(names)[: len(tints)])


def test_drawings_have_outlines_a_legend_and_the_right_size():
    image, labels, valid, _ = scene(3, 120, 160)
    found = Found(labels, valid)
    drawn = TASK.draw(image, found, CLASSES)
    assert drawn.shape[1] == 640
    assert drawn.shape[0] > 480
    tints = palette.palette(CLASSES)
    for label in np.unique(labels[valid]):
        # An outline of the full colour, and its square in the legend.
        for part in (drawn[:480], drawn[480:]):
            assert (part == tints[label]).all(axis=-1).any()
    lines = legend(found, CLASSES)
    assert lines[-1].name == "ignored"
    assert sum(line.part for line in lines) == pytest.approx(1)
    nothing = TASK.draw(image, Found(labels, np.zeros_like(valid)), CLASSES)
    assert nothing.shape[1] == 640
    panel = TASK.draw(image, found, CLASSES, least_side=100, most_side=100)
    assert panel.shape[1] == 100


def test_a_long_legend_is_shortened_and_small_shares_are_not_none():
    names = [f"class number {i}" for i in range(100)]
    labels = np.arange(100, dtype=np.uint8).reshape(10, 10)
    lines = legend(Found(labels, np.ones((10, 10), bool)), names)
    short = shortened(lines, 100, 300, 12)
    assert len(short) < 20
    assert short[-1].name == f"{101 - len(short)} others"
    assert sum(line.part for line in short) == pytest.approx(1)
    assert [share(x) for x in (0.0001, 0.043, 0.5)] == ["0.1%", "4.3%", "50%"]


def judged(pairs, skip=False, **settings):
    """The meter of (true record, labels found) of one-image parts."""
    held = [record for record, _ in pairs]
    meter = TASK.meter(held, info(CLASSES), range(len(held)), skip, **settings)
    for place, (_, labels) in enumerate(pairs):
        meter.add(place, Found(labels, np.ones(labels.shape, bool)))
    return meter


def test_metrics_by_hand():
    truth = np.uint8([[0, 0, 1, 1]] * 4)
    found = np.uint8([[0, 1, 1, 1]] * 4)
    valid = np.ones((4, 4), bool)
    valid[3] = False
    meter = judged([(record(truth, valid), found)])
    parts = meter.parts
    assert parts is meter.parts or parts["confusion"] is meter.parts["confusion"]
    assert parts["confusion"].tolist() == [[[3, 3, 0], [0, 6, 0], [0, 0, 0]]]
    got = meter.result(parts)
    assert got["pixel_accuracy"] == 0.75
    assert got["miou"] == pytest.approx((3 / 6 + 6 / 9) / 2)
    assert got["iou/sky"] == 0.5
    assert got["iou/disc"] == -1
    assert got["dice_macro"] == got["f1_macro"]
    assert meter.names() == [*got]
    assert meter.files(parts)["confusion.json"]["matrix"][0] == [3, 3, 0]
    assert [*meter.plots(parts)] == ["confusion.png", "iou.png"]
    assert meter.plots({}) == {}
    table = meter.table(parts)
    assert table.rows[0][:3] == ("sky", 6, 0.5)
    assert np.isnan(table.rows[2][2])
    assert set(TASK.meter([], info(CLASSES), []).result({}).values()) == {-1.0}
    fewer = judged([(record(truth, valid), found)], boundary=False)
    assert "boundary_f" not in fewer.result(fewer.parts)


def test_what_cannot_be_read_is_an_error_or_left_out():
    good = record(np.zeros((4, 4), np.uint8))
    bad = record(np.full((4, 4), 9, np.uint8))
    found = np.zeros((4, 4), np.uint8)
    with pytest.raises(Unreadable, match="label 9"):
        _ = judged([(good, found), (bad, found)]).parts
    meter = judged([(good, found), (bad, found)], skip=True)
    assert meter.parts["confusion"].sum() == 16


def test_memory_of_a_meter_does_not_grow_with_images():
    one = record(np.zeros((4, 4), np.uint8))
    found = Found(np.zeros((4, 4), np.uint8), np.ones((4, 4), bool))
    meter = TASK.meter([one] * 500, info(CLASSES), range(500))
    for place in range(500):
        meter.add(place, found)
        assert len(meter._waiting) <= 16
    assert {len(v) for v in meter.parts.values()} == {1}
    assert meter.parts["confusion"].sum() == 8000
