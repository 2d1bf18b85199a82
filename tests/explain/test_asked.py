"""The same thing is explained of a changed picture, and no picture compiles anew."""

import json

import cv2
import jax
import numpy as np
import pytest
from families import SIDE, batch, model, task_of, variables
from test_cam_views import trained

from detjax import tasks
from detjax.errors import UserError
from detjax.explain import influence, layers, pictures, splits, units
from detjax.explain.methods import METHODS
from detjax.explain.views import activations, asked, attribute, cam
from detjax.explain.views import influence as influences
from detjax.tasks.detection import quantities, subject
from detjax.types import Batch, Detections, Inputs, LabelScores, Question, View

CLASSIFIER = {"num_classes": 3, "backbone": {"name": "resnet10", "width": 8}}


@pytest.fixture
def files(tmp_path):
    """Pictures of the same name in two folders, and another size."""
    rng = np.random.default_rng(0)
    found = [tmp_path / name for name in ("a/1.png", "b/1.png", "a/2.png")]
    for file, size in zip(found, ((50, 70), (50, 70), (64, 40)), strict=True):
        file.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(file), rng.integers(0, 255, (*size, 3)).astype(np.uint8))
    return found


def question(quantity="score", part=None, labels=(), most=1, min_score=0.0):
    return Question(quantity, part, labels, ("a", "b", "c"), most, min_score)


def test_without_a_class_that_of_the_picture_is_explained(files):
    """Integrated gradients sum to the rise of one logit, whatever wins on the way."""
    made = trained("classifier", **CLASSIFIER)
    _, inputs = pictures.given(made, files[0])
    ask = asked.Asker(made)
    of = ask(inputs)
    label = int(of.which[0, 0])
    blank = layers.changed(made.model.predict, {layers.IMAGES: lambda x: 0 * x})
    ends = [f(*ask.weights, inputs).logits[0] for f in (blank, made.model.predict)]
    build = attribute._attributed(ask, "integrated_gradients", False)
    got = np.asarray(ask.run("ig", build, of, inputs)).sum()
    np.testing.assert_allclose(got, (ends[1] - ends[0])[label], rtol=0.05, atol=2e-3)
    # By its name it is the same.
    named = asked.Asker(made, labels=[made.classes[label]])
    again = np.asarray(named.run("ig", build, named(inputs), inputs)).sum()
    assert got == pytest.approx(float(again), rel=1e-5)


def test_no_picture_compiles_anew_and_none_replaces_another(files, tmp_path):
    made = trained("ssd")
    ask = asked.Asker(made, most=4)
    seen = set()
    for file in files:
        _, inputs = pictures.given(made, file)
        of = ask(inputs)
        seen.add(len(of.captions))
        cam.maps_of(ask, inputs, of, "layer-cam", None, "")
    assert [call._cache_size() for call in ask._programs.values()] == [1]
    assert ask._answer._cache_size() == 1
    written = cam.view(made, files, tmp_path / "out", detections=2, min_score=0.0)
    assert len({*written}) == 3
    assert all(path.exists() for path in written)


def test_a_picture_without_a_detection_ends_nothing(files, tmp_path):
    """It is drawn as it is, and the others are explained."""
    made = trained("ssd")
    ask = asked.Asker(made)
    given = (pictures.given(made, file)[1] for file in files)
    scores = [float(ask._answer(*ask.weights, x).scores.max()) for x in given]
    least = float(np.mean([min(scores), max(scores)]))
    written = cam.view(made, files, tmp_path, min_score=least, detections=1)
    widths = [cv2.imread(str(path)).shape[1] for path in written]
    panels = [1 + (score >= least) for score in scores]
    assert np.argsort(widths)[-1] in np.flatnonzero(np.array(panels) == 2)
    assert len(written) == 3


def found(**more):
    return Detections(
        np.float32([[[0, 0, 8, 8], [1, 0, 9, 8], [20, 20, 30, 40]]]),
        np.float32([[0.3, 0.9, 0.5]]),
        np.int32([[0, 1, 0]]),
        np.array([[True, True, True]]),
        **more,
    )


def test_detections_are_found_again_by_class_and_place():
    of = subject.ask(found(), None, question(labels=(0,), most=3))
    assert of.captions == ["a 0.30", "a 0.50"]
    np.testing.assert_array_equal(of.which[1], [[0, 0, -1]])
    np.testing.assert_allclose(of.quantity(found(), of.which), [[0.3, 0.5, 0]])
    # In another order, moved, and one of them gone.
    other = Detections(
        np.float32([[[20, 20, 30, 40], [4, 0, 12, 8]]]),
        np.float32([[0.8, 0.6]]),
        np.int32([[1, 0]]),
        np.array([[True, True]]),
    )
    np.testing.assert_allclose(
        of.quantity(other, of.which), [[0.6 / 3, 0, 0]], rtol=1e-6
    )
    left = subject.ask(found(), None, question("box", 0, most=3))
    np.testing.assert_allclose(left.quantity(found(), left.which), [[0, 1, 20]])
    np.testing.assert_allclose(left.quantity(other, left.which), [[4, 0, 0]])
    # Equal questions are of one quantity, so that programs are found again.
    assert left.quantity is subject.same("box", 0)
    nothing = subject.ask(found(), None, question(min_score=1.0))
    assert not nothing.captions


@pytest.mark.parametrize("name", ["ssd", "retinanet"])
def test_in_the_picture_itself_it_is_the_detection(name):
    """Its score and its gradient, not those of a neighbour or of an overlap."""
    made, weights, data = model(name), variables(name), batch(1, name=name)
    answers = jax.device_get(jax.jit(made.predict)(*weights, data.inputs))
    of = subject.ask(answers, data.inputs, question(most=3))

    @jax.jit
    def both(*given):
        plain = layers.slopes(
            made.predict, [layers.IMAGES], lambda x: quantities.score(x, np.arange(3))
        )(*given)
        again = layers.slopes(
            made.predict, [layers.IMAGES], lambda x: of.quantity(x, of.which)
        )(*given)
        return plain, again

    plain, again = both(*weights, data.inputs)
    np.testing.assert_allclose(again.quantities, plain.quantities, rtol=1e-5)
    np.testing.assert_allclose(
        *(x.gradients[layers.IMAGES] for x in (again, plain)), rtol=1e-4, atol=1e-7
    )


def test_a_region_is_of_the_picture_and_not_of_the_background():
    """Padding wins class 2 and the background most; what is left is class 1."""
    logits = np.zeros((1, 4, 4, 3), np.float32)
    logits[0, :2, :, 0], logits[0, 1, 1:3, 1], logits[0, 2:, :, 2] = 1, 3, 5
    inputs = Inputs(
        np.zeros((1, 8, 8, 3), np.uint8),
        View(np.eye(2, 3, dtype="f")[None], np.int32([[4, 8]]), np.ones(1, bool)),
    )
    task = tasks.TASKS["segmentation"]
    asks = Question("score", None, (), ("background", "x", "y"), 1, 0.0)
    answers = LabelScores(logits, (8, 8))
    of = task.ask(answers, inputs, asks)
    assert of.captions == ["x"]
    assert of.which[1].sum() == 2
    np.testing.assert_allclose(of.quantity(answers, of.which), [[3]])
    # Where another class wins now the same places count.
    np.testing.assert_allclose(
        of.quantity(LabelScores(logits - 2, (8, 8)), of.which), [[1]]
    )
    both = task.ask(answers, inputs, asks._replace(labels=(1, 0)))
    np.testing.assert_allclose(both.quantity(answers, both.which), [[3, 1]])


@pytest.mark.parametrize("name", ["retinanet", "ssd", "fcn_vgg"])
def test_the_usual_layer_of_influence_moves_the_answer(name, files, tmp_path):
    made = trained(name)
    paths = influences.view(made, files[:1], tmp_path, kind="internal", steps=2, most=2)
    assert [path.name for path in paths] == ["influence-1.png", "influence.json"]
    assert cv2.imread(str(paths[0])).std() > 10


def test_units_and_parts_are_asked_for_by_number(files):
    made = trained("yolact")
    _, inputs = pictures.given(made, files[0])
    ask = asked.Asker(made, "unit:proto_net.10:2")
    of = ask(inputs)
    call = METHODS["gradient"](ask.predict, lambda x: of.quantity(x, of.which))
    slopes = jax.jit(call)(*ask.weights, inputs)
    assert np.abs(slopes).max() > 0
    _, held = layers.seen(made.model.predict, ["proto_net.10"])(*ask.weights, inputs)
    expected = np.asarray(held["proto_net.10"])[..., 2].mean()
    answers = ask.predict(*ask.weights, inputs)
    np.testing.assert_allclose(of.quantity(answers, of.which), [[expected]], rtol=1e-5)
    for quantity, message in (
        ("unit:proto_net.10:99", "99 is none of them"),
        ("unit:proto:1", "the nearest are"),
        ("unit:3", "names no layer and channel"),
        ("box:4", "sides of boxes are 0 to 3"),
        ("box:left", "'left' is no whole number"),
        ("score:1", "it has no parts"),
        ("alike", "no quantity 'alike'"),
    ):
        with pytest.raises(UserError, match=message):
            asked.Asker(made, quantity)(inputs)


def shown(labels, size=(2, 2), first=0):
    b = len(labels)
    images = np.arange(first, first + b, dtype=np.uint8)[:, None, None, None]
    view = View(np.zeros((b, 2, 3), "f"), np.zeros((b, 2), np.int32), np.ones(b, bool))
    inputs = Inputs(np.broadcast_to(images, (b, *size, 3)), view)
    return splits.Shown(inputs, np.array(labels), None)


def test_a_class_is_gathered_from_a_stream():
    """In whole batches, by size, and as many as are wanted of it and of the others."""
    given = [
        shown([0, 1, 2, 1]),
        shown([2, 2, 2, 2], first=4),
        shown([1, 0, 1, 1], first=8),
        shown([1, 1, 1, -1], (4, 2), first=12),
        shown([1, 0, 0, 1], first=16),
    ]
    found = [*splits.of_class(iter(given), 1)]
    numbers = [x.images[x.view.valid][:, 0, 0, 0].tolist() for x in found]
    assert numbers == [[1, 3, 8, 10], [12, 13, 14], [11, 16, 19]]
    assert {len(x.images) for x in found} == {4}
    some = [x.labels.tolist() for x in splits.balanced(iter(given), 1, 3)]
    assert some == [[0, 1, 2, 1], [2, -1, -1, -1], [1, -1, -1, -1]]
    whole = [x.labels.tolist() for x in splits.balanced(iter(given), 1)]
    assert whole == [x.labels.tolist() for x in given]


def test_the_influence_of_a_class_needs_its_pictures_alone():
    """Gathered, and masked out of all: the same mean."""
    name = "classifier"
    made = trained(name, **CLASSIFIER)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (6, SIDE, SIDE, 3)).astype(np.uint8)
    labels = np.array([0, 1, 2, 1, 1, 0])
    views = View(
        np.tile(np.eye(2, 3, dtype="f"), (6, 1, 1)),
        np.full((6, 2), SIDE, np.int32),
        np.ones(6, bool),
    )
    whole = splits.Shown(Inputs(images, views), labels, None)

    def amounts(*given):
        call = influence.internal(
            made.model.predict, lambda x: x.logits[:, :1], "backbone.layer1.0", steps=2
        )
        return units.by_channel(call(*given))

    held = made.params, made.state
    got = influence.over(amounts, *held, splits.of_class(iter([whole]), 1))
    only = whole.inputs.replace(view=views.replace(valid=labels == 1))
    expected = influence.over(amounts, *held, [only])
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-7)


def test_every_task_can_be_asked():
    for name in ("ssd", "fcn_vgg", "dense_fpn", "scene_fpn"):
        made, weights, data = model(name), variables(name), batch(1, name=name)
        task = tasks.TASKS[task_of(name)]
        answers = jax.device_get(jax.jit(made.predict)(*weights, data.inputs))
        for quantity in task.quantities:
            if quantity in ("mask", "keypoint"):
                continue
            of = task.ask(answers, data.inputs, question(quantity))
            got = of.quantity(answers, of.which)
            assert got.shape == (1, 1), quantity
            assert np.isfinite(got).all(), quantity
            assert hash(of.quantity) == hash(
                task.ask(answers, data.inputs, question(quantity)).quantity
            )


def test_patches_are_cut_where_they_are_in_pictures_of_several_sizes(
    tmp_path, files, monkeypatch
):
    """A bright spot, at a corner of a wide picture and of a tall one."""
    made = trained("classifier", **CLASSIFIER)
    rng = np.random.default_rng(0)
    spots, given = {(64, 128): (9, 117), (128, 64): (117, 9)}, []
    for size, (y, x) in spots.items():
        images = np.full((1, *size, 3), 124, np.uint8)
        images[0, y - 3 : y + 3, x - 3 : x + 3] = rng.integers(0, 255, (6, 6, 3))
        view = View(np.eye(2, 3, dtype="f")[None], np.int32([size]), np.ones(1, bool))
        given.append(Batch(Inputs(images, view), None, np.zeros(1, np.int32)))
    monkeypatch.setattr(splits, "batches", lambda *_: iter(given))
    cut = {}

    def watched(image, centre, reach):
        cut.setdefault(image.shape[:2], []).append(centre)
        return image

    monkeypatch.setattr(activations, "_cut", watched)
    [_, _, path] = activations.view(
        made,
        files[:1],
        tmp_path,
        layer=r"backbone\.layer1\.0\.conv1",
        patches=2,
        units=(0, 1, 2, 3),
    )
    assert path.exists()
    for size, (y, x) in spots.items():
        apart = np.abs(np.array(cut[size]) - [y, x]).max(axis=1)
        assert np.median(apart) < 12


def test_units_that_suffice_are_counted_over_a_stream(tmp_path, monkeypatch):
    """Of a class whose name no file can have; all units do what the network does."""
    made = trained("classifier", **CLASSIFIER)
    made = made._replace(classes=["cat", "a/b", "owl"])
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (12, SIDE, SIDE, 3)).astype(np.uint8)
    answers = jax.jit(made.model.predict)(made.params, made.state, Inputs(images))
    scores = np.asarray(answers.scores)
    # What the network takes for the class, so that all of it tells them apart.
    labels = np.where(scores[:, 1] > np.median(scores[:, 1]), 1, 2)
    view = View(
        np.tile(np.eye(2, 3, dtype="f"), (4, 1, 1)),
        np.full((4, 2), SIDE, np.int32),
        np.ones(4, bool),
    )

    def opened(*_):
        for first in range(0, 12, 4):
            rows = slice(first, first + 4)
            yield splits.Shown(Inputs(images[rows], view), labels[rows], None)

    monkeypatch.setattr(splits, "opened", opened)
    paths = influences.view(
        made, [], tmp_path, label="a/b", kind="internal", steps=2, suffice=True
    )
    assert [path.name for path in paths] == ["suffice-a_b.png", "influence.json"]
    held = json.loads(paths[1].read_text())
    assert held["kept"][-1] == 32
    assert {*held["accuracy"]} == {"influence", "activity", "chance"}
    for found in (held["accuracy"], held["pairs"]):
        assert all(0 <= x <= 1 for values in found.values() for x in values)
    assert held["accuracy"]["influence"][-1] > 0.9
    monkeypatch.setattr(splits, "opened", lambda *_: iter([shown([0, 2])]))
    with pytest.raises(UserError, match="no picture of 'a/b'"):
        influences.view(made, [], tmp_path, label="a/b", suffice=True)
