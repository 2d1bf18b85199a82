"""Maps of numbers, and several tasks as one."""

import inspect
import io
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from infos import info
from tasks.pixel_cases import CLASSES, records, scene
from tensorflow_datasets.core import example_serializer

from detjax import draw, settings
from detjax.data import features, frames, value_maps
from detjax.data.features import Schema
from detjax.data.frames import Seen
from detjax.data.records import Record, Unreadable
from detjax.errors import UserError
from detjax.eval import depth
from detjax.ops import resize
from detjax.tasks import TASKS, dense, joint, segmentation
from detjax.tasks.dense import Found
from detjax.tasks.joint.parts import side_by_side
from detjax.types import LabelMap, LabelScores, ValueMap

DENSE, SCENE = TASKS["dense"], TASKS["scene"]


@pytest.mark.parametrize("name", ["dense", "scene"])
def test_examples_are_those_of_tfds_and_come_back(name):
    task = TASKS[name]
    schema = Schema(CLASSES)
    one = records(name, 1)[0]
    ours = features.encode(one, one.image, schema, task)
    assert features.decode(ours, task).truth == one.truth
    named = features.features(schema, task)
    truth = one.truth if name == "scene" else {"dense": one.truth}
    held = {"value_map": truth["dense"]}
    if name == "scene":
        maps = {"label_map": io.BytesIO(truth["segmentation"])}
        held = {"segmentation": maps, "dense": held}
    held |= {
        "image": io.BytesIO(one.image),
        "image_id": 1,
        "file_name": "1.png",
        "height": 48,
        "width": 64,
    }
    serializer = example_serializer.ExampleSerializer(named.get_serialized_info())
    theirs = serializer.serialize_example(named.encode_example(held))
    assert features.decode(theirs, task).truth == one.truth


def test_faults_of_each_task_are_found():
    truth = records("scene", 1)[0].truth
    assert SCENE.fault(truth, 3) is None
    assert (
        SCENE.fault({**truth, "dense": b"x"}, 3) == "the map of values is no TIFF file"
    )
    assert (
        SCENE.fault({"dense": truth["dense"]}, 3) == "there is no truth of segmentation"
    )
    assert SCENE.fault(b"x", 3) == "there is no truth of segmentation"
    assert SCENE.facts(truth).counts["maps"] == 1
    assert SCENE.facts(truth).labels.tolist() == [0, 1, 2]
    one = records("scene", 1)[0]
    labels, boxes = SCENE.regions(one)
    assert labels.tolist() == [0, 1, 2]
    assert boxes.shape == (3, 4)
    assert DENSE.regions(records("dense", 1)[0])[1].tolist() == [[0, 0, 64, 48]]
    assert DENSE.facts(truth["dense"]).labels.tolist() == [0]


def test_values_are_those_of_the_nearest_pixel_and_do_not_change():
    _, _, valid, deep = scene(1)
    one = Record(1, "1.png", 48, 64, truth=value_maps.encode(deep, valid))
    made = DENSE.targets(info(CLASSES))
    room, _ = made.empty(1, (70, 90))
    target = jax.tree.map(lambda x: x[0], room)
    turned = frames.scaling(1.3, 1.3, 8, 3) @ frames.rotation(10, (30, 20))
    whole = np.array([0, 0, 90, 70])
    counts = made.fill(target, [Seen(made.read(one), turned, whole)], (70, 90))
    assert set(np.unique(target.values[target.valid])) == {2, 4, 9}
    assert not target.values[~target.valid].any()
    assert counts["pixels with a value"] == target.valid.sum()
    made.clear(target)
    assert not target.valid.any()
    with pytest.raises(UserError, match="mixup and cutmix"):
        made.fill(target, [Seen(made.read(one), turned, whole, 0.5)], (70, 90))
    assert "no pixel" in DENSE.warnings({"pixels with a value": 0})["pixels"]
    assert DENSE.warnings({"pixels with a value": 3}) == {}
    assert made.evaluation().read(one).values.size == 0


def test_values_come_back_interpolated():
    values = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)
    whole = np.asarray(resize.bilinear(values[..., None], (24, 32))[..., 0])
    affine = np.eye(3)[:2]
    found = DENSE.restore(ValueMap(values), affine, (24, 32), (24, 32))
    np.testing.assert_allclose(found.values, whole, atol=1e-5)
    # In the upper left corner of its input.
    part = DENSE.restore(ValueMap(values), affine, (20, 30), (24, 32))
    np.testing.assert_allclose(part.values, whole[:20, :30], atol=1e-5)
    assert DENSE.confident(found, 0.9) is found


def test_views_of_values_merge_to_their_mean():
    answer = ValueMap(jnp.float32(np.random.default_rng(0).normal(size=(2, 6, 8))))
    mirrored = DENSE.mirror(answer, (24, 32), ())
    both = DENSE.merge([answer, DENSE.mirror(mirrored, (24, 32), ())], 0.5)
    np.testing.assert_allclose(both.values, answer.values, rtol=1e-6)
    coarse = DENSE.rescale(ValueMap(jnp.ones((2, 3, 4))), (2.0, 2.0))
    merged = DENSE.merge([coarse, ValueMap(jnp.full((2, 6, 8), 3.0))], 0.5)
    np.testing.assert_allclose(merged.values, jnp.full((2, 6, 8), 2.0), rtol=1e-6)


def test_drawings_and_files_of_values():
    image, _, valid, deep = scene(2)
    found = Found(deep, valid)
    drawn = DENSE.draw(image, found, ("depth",))
    assert drawn.shape[1] == 640
    assert drawn.shape[0] > 480
    assert (drawn[2, 2] == dense.drawing.UNKNOWN).all()
    for odd in (
        Found(np.full((48, 64), np.nan, np.float32)),
        Found(np.full((48, 64), 7, np.float32)),
        Found(deep, np.zeros_like(valid)),
    ):
        assert DENSE.draw(image, odd, ("depth",)).shape == drawn.shape
    [file] = DENSE.files(found, ("depth",)).values()
    values, known = value_maps.decode(file, (48, 64))
    np.testing.assert_array_equal(known, valid)
    np.testing.assert_array_equal(values[valid], deep[valid])
    # A mark at a file's end does not harm it.
    again, _ = value_maps.decode(draw.marked(file), (48, 64))
    np.testing.assert_array_equal(again, values)
    [row] = DENSE.entries(found, 5, (1,))
    assert (row["least"], row["greatest"]) == (2, 9)
    assert row["category_id"] == 1
    assert DENSE.entries(Found(deep, np.zeros_like(valid)), 5, (1,)) == []


def test_metrics_of_values_are_streamed():
    held = records("dense", 3)
    meter = DENSE.meter(held, info(("depth",)), range(3))
    total = 0.0
    for place, record in enumerate(held):
        truth = DENSE.truth(record)
        found = truth.values + 1
        total = total + depth.sums(truth.values, found, truth.valid)
        meter.add(place, Found(found))
    assert meter.parts["values"].shape == (1, len(depth.SUMS))
    np.testing.assert_allclose(meter.parts["values"][0], total)
    got = meter.result(meter.parts)
    assert got["mae"] == pytest.approx(1)
    assert [*got] == meter.names()
    assert set(meter.again().result({}).values()) == {-1.0}
    assert meter.table(meter.parts).rows[0][0] == "depth"
    assert meter.files({}) == meter.plots({}) == {}
    broken = [Record(1, "x", 48, 64, truth=b"II*\0")]
    with pytest.raises(Unreadable):
        DENSE.meter(broken, info(CLASSES), range(1)).add(0, Found(np.ones((48, 64))))
    skipping = DENSE.meter(broken, info(CLASSES), range(1), True)
    skipping.add(0, Found(np.ones((48, 64))))
    assert skipping.parts == {}


def test_settings_of_several_tasks_are_those_of_each():
    known = settings.keywords(SCENE.targets)
    assert "class_weights" in known
    assert "class_weights: what the pixels" in inspect.getdoc(SCENE.targets)
    assert "class_weights" in settings.described(SCENE.targets)
    assert set(settings.keywords(SCENE.meter)) == {"boundary", "boundary_tolerance"}
    made = SCENE.targets(info(CLASSES), class_weights=(1.0, 2.0, 3.0))
    room, counts = made.empty(2, (8, 8))
    assert room["segmentation"].weights.shape == (2, 3)
    assert set(counts) == {
        "segmentation/pixels with a class",
        "segmentation/pixels ignored",
        "dense/pixels with a value",
    }
    said = SCENE.warnings(dict.fromkeys(counts, 0.0))
    assert set(said) == {"segmentation/pixels", "dense/pixels"}
    meter = SCENE.meter([], info(CLASSES), [], boundary=False)
    assert "segmentation/boundary_f" not in meter.names()
    assert {"segmentation/miou", "dense/rmse"} <= set(meter.names())
    assert set(meter.result({})) == set(meter.names())


def test_a_joint_task_can_be_sent_to_other_processes():
    task, made = pickle.loads(pickle.dumps((SCENE, SCENE.targets(info(CLASSES)))))
    assert task.name == "scene"
    one = records("scene", 1)[0]
    assert made.read(one).each["dense"].values.max() == 9
    assert isinstance(
        task.target(segmentation={"labels": 0, "valid": 1}, dense={"values": 2})[
            "dense"
        ],
        ValueMap,
    )
    assert isinstance(
        SCENE.target(segmentation={"labels": 0, "valid": 1}, dense={"values": 2})[
            "segmentation"
        ],
        LabelMap,
    )


def test_answers_of_several_tasks_go_each_its_way():
    rng = np.random.default_rng(0)
    answer = {
        "segmentation": LabelScores(
            jnp.float32(rng.normal(size=(1, 6, 8, 3))), (24, 32)
        ),
        "dense": ValueMap(jnp.float32(rng.normal(size=(1, 6, 8)))),
    }
    mirrored = SCENE.mirror(answer, (24, 32), ())
    merged = SCENE.merge([answer, SCENE.mirror(mirrored, (24, 32), ())], 0.5)
    np.testing.assert_allclose(merged["dense"].values, answer["dense"].values)
    larger = SCENE.rescale(answer, (2.0, 2.0))
    assert larger["segmentation"].size == (48, 64)
    shrunk = jax.tree.map(lambda x: np.asarray(x[0]), SCENE.shrink(answer))
    found = SCENE.restore(shrunk, np.eye(3)[:2], (20, 30), (24, 32), 0.5)
    assert found["segmentation"].labels.shape == (20, 30)
    assert not found["segmentation"].valid.all()
    assert SCENE.confident(found, 0.6)["dense"] is found["dense"]
    image = np.full((20, 30, 3), 90, np.uint8)
    drawn = SCENE.draw(image, found, CLASSES)
    assert drawn.shape[1] > 2 * 480
    panel = SCENE.draw(image, found, CLASSES, least_side=200, most_side=200)
    assert panel.shape[1] <= 200
    assert set(SCENE.files(found, CLASSES)) == set(SCENE.endings)
    rows = SCENE.entries(found, 1, (1, 2, 3))
    assert "category_id" not in rows[-1]
    assert "mean" in rows[-1]


def test_files_of_one_ending_get_the_names_of_their_tasks():
    other = segmentation.TASK._replace(name="parts")
    two = joint.joint("two", segmentation.TASK, other)
    assert two.endings == ("-labels.png", "-parts-labels.png")
    truth = records("segmentation", 1)[0].truth
    one = Record(1, "1.png", 48, 64, truth={"segmentation": truth, "parts": truth})
    found = two.truth(one)
    assert set(two.files(found, CLASSES)) == set(two.endings)


def test_pictures_stand_side_by_side():
    sheet = side_by_side(
        [np.zeros((4, 3, 3), np.uint8), np.ones((2, 5, 3), np.uint8)], 2
    )
    assert sheet.shape == (4, 10, 3)
    assert (sheet[:2, 5:] == 1).all()
    assert (sheet[2:, 5:] == 255).all()
