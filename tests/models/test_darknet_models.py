"""Darknet's detectors and classifiers, from the text of a cfg to losses."""

import dataclasses
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import CLASSES, DARKNET, REGION, SIDE, YOLO, batch, cfg, conv, key
from families import DETECTION as V1
from flax import traverse_util

from detjax import models
from detjax.errors import UserError
from detjax.models.darknet import cfg as cfgs
from detjax.models.darknet import ends, seen
from detjax.models.darknet.classifier import each_loss
from detjax.models.darknet.model import anchors, with_anchors
from detjax.types import Batch, Inputs, Label, View

FOLDER = os.environ.get("DETJAX_DARKNET")
# Of other trades, and features without an end.
REFUSED = {
    **dict.fromkeys(("rnn", "rnn.train", "gru"), r"line \d+: \[\w+\] is of networks"),
    **dict.fromkeys(("go", "go.test"), "channels=1; images have 3 here"),
    **dict.fromkeys(("jnet-conv", "vgg-conv"), "it is the last layer"),
}
# Built every day, of each kind one.
SAMPLED = ("alexnet", "darknet9000", "resnet18", "strided", "t1.test", "yolov1-tiny")
SAMPLED += ("yolov2-tiny-voc", "yolov3-tiny", "yolov4-tiny", "enet-coco", "writing")
NORMED = cfg(conv(8, 2), "convolutional filters=3 size=1 activation=linear", "avgpool")


def made(text, **settings):
    return models.make(**DARKNET, cfg=text, **settings)


def labelled(weights, side=SIDE, valid=None):
    """A batch of noise whose images have classes of these weights [b c]."""
    b = len(weights)
    images = np.random.default_rng(0).integers(0, 255, (b, side, side, 3))
    valid = np.ones(b, bool) if valid is None else np.array(valid)
    eye = np.tile(np.eye(3, dtype=np.float32)[:2], (b, 1, 1))
    view = View(eye, np.full((b, 2), side, np.int32), valid)
    inputs = Inputs(images.astype(np.uint8), view)
    return Batch(inputs, Label(np.float32(weights)), np.arange(b, dtype=np.int32))


def weights_of(model, side=SIDE):
    images = np.zeros((1, side, side, 3), np.uint8)
    return jax.jit(model.init)(jax.random.key(0, impl="rbg"), images)


# ---- detectors


def test_a_head_of_other_classes_is_as_wide():
    assert made(YOLO)._replace(net=None).spec.outputs == CLASSES
    wider = models.make("darknet", cfg=YOLO, num_classes=7)
    params, _ = jax.eval_shape(
        wider.init, key(), np.zeros((1, SIDE, SIDE, 3), np.uint8)
    )
    assert wider.spec.outputs == 7
    assert params["3"]["kernel"].shape[-1] == params["8"]["kernel"].shape[-1] == 24


def test_images_seen_are_counted_and_end_the_first_phase():
    model, data = made(REGION), batch()
    params, state = weights_of(model)
    late = {**state, seen.NAME: seen.held(12_798)}
    step = jax.jit(model.loss)
    (_, (after, early)) = step(params, state, data, key())
    assert seen.exact(after[seen.NAME]) == 2
    # As in darknet a batch is counted before it is learnt.
    (_, (after, metrics)) = step(params, late, data, key())
    assert seen.exact(after[seen.NAME]) == 12_800
    assert 0 < metrics["box"] < early["box"]
    fill = dataclasses.replace(data.inputs.view, valid=np.array([True, False]))
    padded = data.replace(inputs=data.inputs.replace(view=fill))
    (_, (after, _)) = step(params, state, padded, key())
    assert seen.exact(after[seen.NAME]) == 1


@pytest.mark.parametrize("count", [0, 1, 2**20 - 1, 2**24 + 1, 32_013_313, 2**40 + 3])
def test_counts_are_exact(count):
    held = {seen.NAME: seen.held(count)}
    assert seen.exact(held[seen.NAME]) == count
    assert seen.exact(jax.jit(seen.after)(held, jnp.int32(64))) == count + 64
    assert seen.number(held[seen.NAME]) == pytest.approx(count, rel=1e-7)
    assert list(seen.without({**held, "batch_stats": 1})) == ["batch_stats"]


def test_a_loss_is_the_mean_of_its_images():
    # Without statistics of the batch.
    text = V1.replace("batch_normalize=1", "batch_normalize=0")
    model, data = made(text), batch(count=2)
    params, state = weights_of(model)
    loss = jax.jit(lambda data: model.loss(params, state, data, key())[0])
    twins = [jax.tree.map(lambda x, i=i: np.stack([x[i]] * 2), data) for i in (0, 1)]
    mean = np.mean([float(loss(twin)) for twin in twins])
    assert float(loss(data)) == pytest.approx(mean, rel=1e-5)


def test_anchors_are_in_pixels_and_may_be_others():
    read = ends.described(REGION)
    assert anchors(read, (64, 128))[1] == (4.0, 4.0)
    changed = with_anchors(read, [(10, 14), (24, 30)])
    assert changed.layers[-1].numbers("anchors") == (2.5, 3.5, 6, 7.5)
    model = made(REGION, priors={"sizes": ((10, 14), (24, 30))})
    [level] = model.priors((SIDE, SIDE)).levels
    np.testing.assert_allclose(level.boxes[:, 2:] * 2, [(10, 14), (24, 30)])
    assert made(V1).priors is None
    with pytest.raises(UserError, match=r"it has 2 anchors, model\.priors\.sizes 1"):
        made(REGION, priors={"sizes": ((10, 14),)})
    with pytest.raises(UserError, match="it has 0 anchors"):
        made(V1, priors={"sizes": ((10, 14),)})


def test_anchors_are_fitted_to_objects():
    rng = np.random.default_rng(0)
    sides = np.repeat([[6, 6], [10, 20], [30, 12], [40, 40]], 25, axis=0)
    sides = sides * rng.uniform(0.95, 1.05, (100, 1))
    low = rng.uniform(0, 20, (100, 2))
    boxes = np.concatenate([low, low + sides], axis=1)
    found = made(YOLO).priors((SIDE, SIDE)).fitted(boxes)["priors.sizes"]
    np.testing.assert_allclose(found, [[6, 6], [10, 20], [30, 12], [40, 40]], rtol=0.05)
    few = made(YOLO).priors((SIDE, SIDE)).fitted(boxes[:2])["priors.sizes"]
    assert few == ((8, 8), (12, 12), (20, 20), (30, 20))


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        (NORMED, "darknet", r"no detector \(a classifier has model.name"),
        (YOLO, "darknet_classifier", "has model.name='darknet'"),
        (NORMED, "darknet_classifier", "neither a head that finds objects nor"),
        (YOLO.replace("channels=3", "channels=1"), "darknet", "images have 3 here"),
        (YOLO.replace("classes=3", "classes=4", 1), "darknet", "not one"),
        (REGION + "tree=9k.tree\n", "darknet", "there is no file 9k.tree; name"),
        (NORMED + "[cost]\nscale=0", "darknet_classifier", "have no loss"),
        (NORMED + "[cost]\ntype=wgan", "darknet_classifier", "type=wgan is not one"),
        (NORMED + "[softmax]\ngroups=2", "darknet_classifier", "groups= other than 1"),
        ("absent.cfg", "darknet", "absent.cfg cannot be read"),
    ],
)
def test_what_is_no_such_network_is_a_sentence(text, name, said):
    with pytest.raises(UserError, match=said):
        models.make(name, cfg=text)


def test_widths_and_sizes_that_do_not_fit_are_sentences():
    data = batch()
    narrow = models.make(
        "darknet", cfg=REGION.replace("filters=16\nsize=1", "filters=15\nsize=1")
    )
    params, state = weights_of(narrow)
    with pytest.raises(UserError, match=r"takes 16 numbers of 3 classes.* has 15"):
        jax.eval_shape(narrow.loss, params, state, data, key())
    whole = made(V1)
    params, state = weights_of(whole)
    wide = np.zeros((1, SIDE, 2 * SIDE, 3), np.uint8)
    with pytest.raises(UserError, match=r"another size of input.*set data\.size"):
        jax.eval_shape(whole.predict, params, state, Inputs(wide))
    odd = np.zeros((1, SIDE - 4, SIDE, 3), np.uint8)
    with pytest.raises(UserError, match=r"joins maps of .* multiples of 32"):
        jax.eval_shape(made(YOLO).init, key(), odd)


# ---- classifiers


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ("[softmax]", lambda x, t: -np.log(softmax(x))[t > 0].sum()),
        ("[softmax]\n[cost]\n", lambda x, t: -2 * np.log(softmax(x))[t > 0].sum()),
        (
            "[softmax]\nnoloss=1\n[cost]\nscale=.5",
            lambda x, t: -0.5 * np.log(softmax(x))[t > 0].sum(),
        ),
        (
            "[softmax]\ntemperature=2",
            lambda x, t: -2 * np.log(softmax(x / 2))[t > 0].sum(),
        ),
        ("[cost]\ntype=sse", lambda x, t: 0.5 * ((x - t) ** 2).sum()),
        ("[cost]\ntype=L1\nscale=3", lambda x, t: 3 * np.abs(x - t).sum()),
        ("[cost]\ntype=smooth", lambda x, t: smooth(np.abs(x - t)).sum()),
    ],
)
def test_a_classifiers_loss_is_its_ends(end, expected):
    found = ends.classes(cfgs.parse(NORMED + end))
    assert found.at == 2
    x, target = np.float32([0.3, -1.2, 2.0]), np.float32([0, 1, 0])
    loss = each_loss(found, jnp.array([x]), jnp.array([target]))
    assert loss.shape == (1,)
    assert float(loss[0]) == pytest.approx(float(expected(x, target)), rel=1e-5)


def softmax(x):
    return np.exp(x) / np.exp(x).sum()


def smooth(x):
    return np.where(x < 1, x**2 / 2, x - 0.5)


def test_a_classifier_learns_and_answers():
    model = models.make("darknet_classifier", cfg=NORMED + "[softmax]", num_classes=4)
    params, state = weights_of(model)
    data = labelled(np.eye(4)[[0, 1, 2]], valid=[True, True, False])
    step = jax.jit(jax.value_and_grad(model.loss, has_aux=True))
    (loss, (after, metrics)), gradients = step(params, state, data, key())
    assert metrics.keys() == {"class", "correct"}
    assert loss == metrics["class"] > 0
    assert seen.exact(after[seen.NAME]) == 2
    assert all(bool((x != 0).any()) for x in jax.tree.leaves(gradients))
    names = [".".join(path) for path in traverse_util.flatten_dict(params)]
    assert names and model.spec.groups == {"backbone": r"^(?!(1)\.)", "head": r"^(1)\."}
    scores = jax.jit(model.predict)(params, state, data.inputs).scores
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)
    # Of a cost alone they are the outputs.
    plain = models.make("darknet_classifier", cfg=NORMED + "[cost]")
    found = jax.jit(plain.predict)(*weights_of(plain), data.inputs).scores
    assert found.min() >= 0 and found.max() <= 1


def test_a_classifier_of_a_tree_learns_what_is_above(tmp_path):
    # Two roots; the second has two below it.
    (tmp_path / "a.tree").write_text("x -1\ny -1\nyes 1\nno 1\n")
    text = NORMED.replace("filters=3", "filters=4") + "[softmax]\ntree=a.tree"
    (tmp_path / "a.cfg").write_text(text)
    model = models.make("darknet_classifier", cfg=str(tmp_path / "a.cfg"))
    params, state = weights_of(model)
    data = labelled(np.eye(4)[[3]])
    scores = jax.jit(model.predict)(params, state, data.inputs).scores[0]
    # What has classes below it is no answer: it is as probable as these together.
    assert scores[1] == 0
    assert scores.sum() == pytest.approx(1, rel=1e-5)
    end = ends.classes(ends.described(tmp_path / "a.cfg"))
    x = jnp.zeros((1, 4))
    loss = each_loss(end, x, jnp.eye(4)[3:])
    assert float(loss[0]) == pytest.approx(2 * np.log(2), rel=1e-5)
    with pytest.raises(UserError, match="the tree has 4 classes, the network 5"):
        models.make("darknet_classifier", cfg=str(tmp_path / "a.cfg"), num_classes=5)


def test_classes_at_places_are_none_of_an_image():
    text = NORMED.replace("[avgpool]", "[softmax]")
    model = models.make("darknet_classifier", cfg=text)
    with pytest.raises(UserError, match="it has classes at 32 x 32 places"):
        jax.eval_shape(model.predict, *weights_of(model), labelled(np.eye(3)).inputs)


def test_a_model_stands_without_its_file(tmp_path):
    (tmp_path / "a.cfg").write_text(YOLO)
    settings = {**DARKNET, "cfg": str(tmp_path / "a.cfg")}
    alone = models.standing(settings)
    assert alone == {**settings, "cfg": YOLO}
    assert models.standing(alone) == alone
    assert models.standing({"name": "yolact"}) == {"name": "yolact"}


def test_a_model_stands_without_the_file_of_its_tree(tmp_path):
    tree = "x -1\ny -1\nyes 1\nno 1\n"
    (tmp_path / "a.tree").write_text(tree)
    text = NORMED.replace("filters=3", "filters=4") + "[softmax]\ntree=a.tree"
    (tmp_path / "a.cfg").write_text(text)
    named = models.standing({"name": "darknet_classifier", "cfg": tmp_path / "a.cfg"})
    given = models.standing({"name": "yolo9000", "tree": str(tmp_path / "a.tree")})
    (tmp_path / "a.tree").unlink()
    (tmp_path / "a.cfg").unlink()
    for settings in (named, given):
        assert settings["tree"] == tree
        assert models.make(**settings).spec.outputs == 4
        assert models.standing(settings) == settings


# ---- the real ones


def real():
    if not FOLDER:
        return []
    return sorted(pathlib.Path(FOLDER).glob("cfg*/*.cfg"))


def learning():
    """The real cfgs whose loss is computed: those of `SAMPLED`, or all on demand.

    All but what is refused, has pictures as answers, or takes gigabytes.
    """
    left = {*REFUSED, "writing", "yolov1", "vgg-16"}
    every = [path for path in real() if path.stem not in left]
    if os.environ.get("DETJAX_EVERY_CFG"):
        return every
    return [path for path in every if path.stem in SAMPLED]


def built(path):
    """The model of a real cfg, of the kind that it is of."""
    settings = {"cfg": str(path)}
    if path.stem in ("yolo9000", "darknet9000"):
        settings["tree"] = str(path.parents[1] / "data/9k.tree")
    kind = "darknet" if ends.described(path).heads else "darknet_classifier"
    return models.make(kind, **settings)


@pytest.mark.skipif(not FOLDER, reason="DETJAX_DARKNET is not set")
@pytest.mark.parametrize(
    "stems", [SAMPLED, pytest.param((), marks=pytest.mark.slow)], ids=["some", "all"]
)
def test_every_real_cfg_is_built_or_refused(stems):
    for path in real():
        if path.stem in REFUSED:
            with pytest.raises(UserError, match=REFUSED[path.stem]):
                built(path)
            continue
        if stems and path.stem not in stems:
            continue
        model = built(path)
        net = model.net.cfg.net
        size = net.whole("height"), net.whole("width")
        shapes = jax.ShapeDtypeStruct((1, *size, 3), np.uint8)
        params, _ = jax.eval_shape(model.init, key(), shapes)
        assert sum(x.size for x in jax.tree.leaves(params)) > 10_000, path


@pytest.mark.slow
@pytest.mark.skipif(not FOLDER, reason="DETJAX_DARKNET is not set")
@pytest.mark.parametrize("path", learning(), ids=lambda p: p.stem)
def test_real_cfgs_learn(path):
    # Small enough for two cores, and large enough for every layer.
    side = 64 if FEW_HALVINGS.isdisjoint({path.stem}) else 128
    model, size = built(path), (side, side)
    params, state = jax.jit(model.init)(
        jax.random.key(0, impl="rbg"), np.zeros((1, *size, 3), np.uint8)
    )
    if model.spec.task == "detection":
        data = batch()
        images = np.resize(data.inputs.images, (2, *size, 3))
        data = data.replace(inputs=data.inputs.replace(images=images))
    else:
        data = labelled(np.eye(model.spec.outputs)[[0, 1]], side)
    step = jax.jit(jax.value_and_grad(model.loss, has_aux=True))
    (loss, _), gradients = step(params, state, data, key())
    assert jnp.isfinite(loss) and loss > 0
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(gradients))


FEW_HALVINGS = {"alexnet", "strided", "vgg-16", "cifar"}
