"""Darknet's classifiers: networks that end with [softmax] or [cost].

    b images, c classes
    outputs  [b c]: logits before a softmax, else what is compared with the classes

Redmon, Darknet: open source neural networks in C, 2013-2016.
"""

from typing import Any

import jax
import jax.numpy as jnp

from detjax import losses
from detjax.models.darknet import ends, layers, seen
from detjax.models.darknet.model import fitting, groups
from detjax.models.darknet.net import Net
from detjax.nn.images import Pixels
from detjax.nn.start import initialiser
from detjax.settings import Count, Dtype, Location
from detjax.types import Array, Batch, Inputs, Model, Scores, Spec


def darknet_classifier(
    *,
    cfg: Location,
    num_classes: Count | None = None,
    tree: Location | None = None,
    pixels: Pixels = "unit",
    dtype: Dtype = "float32",
) -> Model:
    """The image classifier of a cfg file of darknet.

    cfg: the file; or its text, of several lines.
    num_classes: the classes that are told apart, if not those of the cfg: its last
        layer with weights is then made as wide.
    tree: the file of the tree of the classes, where the cfg names one that is not to be
        found from its own folder.
    pixels: how images are normalised: as darknet does to 0..1 ("unit"), in other
        models' ways, or not, because float images are already.
    dtype: of activations; parameters and losses are float32.

    The loss is that of darknet's gradient: a softmax's cross entropy, twice where a
    [cost] follows it; of [cost] alone half squares ("sse"), smooth L1 or absolute
    differences of the outputs, with the weights of the classes. It is a mean over the
    images of a batch. A tree's classes are learnt with those above them.

    Its answers are `Scores`. In training "correct" among the metrics is the share of
    images whose most probable class is one of theirs.

    Raises UserError if the file is no cfg of a classifier.
    """
    read = ends.described(cfg)
    end = ends.classes(read, tree)
    if num_classes is not None and num_classes != read.classes:
        read = read.with_classes(num_classes)
    count = read.classes
    ends.check_tree(end.tree, count)
    net = Net(read, jnp.dtype(dtype), pixels)

    def init(key, images):
        params, state = initialiser(net)(key, images)
        return params, {**state, seen.NAME: seen.held()}

    def outputs(found) -> Array:
        x = found[end.at]
        if x.ndim == 4 and x.shape[1:3] != (1, 1):
            h, w = x.shape[1:3]
            read.layers[end.at].refuse(
                f"it has classes at {h} x {w} places, not of the image; images are "
                f"{read.net.whole('height', 0)} x {read.net.whole('width', 0)} there"
            )
        return layers.flat(x).astype(jnp.float32)

    def loss(params, state, batch: Batch, key):
        statistics = seen.without(state)
        with fitting():
            found, updated = net.apply(
                {"params": params, **statistics},
                batch.inputs.images,
                train=True,
                mutable=[*statistics],
                rngs={"dropout": key},
            )
        x, weights = outputs(found), batch.target.weights
        real = batch.inputs.view.valid
        mean = losses.masked_mean(each_loss(end, x, weights), real)
        most = probable(end, x).argmax(axis=-1)
        hit = jnp.take_along_axis(weights, most[:, None], axis=-1)
        correct = losses.masked_mean((hit[:, 0] > 0).astype(jnp.float32), real)
        updated = {**updated, seen.NAME: seen.after(state, jnp.sum(real))}
        return mean, (updated, {"class": mean, "correct": correct})

    def predict(params, state, inputs: Inputs) -> Scores:
        with fitting():
            variables = {"params": params, **seen.without(state)}
            found: Any = net.apply(variables, inputs.images)
        x = outputs(found)
        return Scores(probable(end, x), x)

    last = read.before(len(read.layers))
    spec = Spec("classification", count, groups=groups((last,)))
    return Model(spec, init, loss, predict, net)


def probable(end: ends.Classes, x: Array) -> Array:
    """The scores [b c] of outputs [b c]: probabilities where there is a softmax.

    Of a tree's classes only those without any below them have some, as in darknet's
    validation: the others are never less probable than what they are of.
    """
    if end.softmax is None:
        return jnp.clip(x, 0, 1)
    x = x / end.softmax.number("temperature", 1)
    if end.tree is None:
        return jax.nn.softmax(x)
    return jnp.where(end.tree.below < 0, end.tree.absolute(x), 0.0)


def each_loss(end: ends.Classes, x: Array, weights: Array) -> Array:
    """The loss [b] of outputs [b c] whose classes have `weights` [b c]."""
    if end.softmax is None:
        apart = jnp.abs(x - weights)
        square = 0.5 * jnp.square(apart)
        each = {
            "squares": square,
            "smooth": jnp.where(apart < 1, square, apart - 0.5),
            "absolute": apart,
        }[end.cost]
        return end.factor * each.sum(axis=-1)
    temperature = end.softmax.number("temperature", 1)
    x = x / temperature
    logs = jax.nn.log_softmax(x) if end.tree is None else end.tree.log_absolute(x)
    total = jnp.maximum(weights.sum(axis=-1, keepdims=True), 1e-6)
    # Darknet's gradient is that of the logits after the division, passed on as it is.
    return -end.factor * temperature * (weights / total * logs).sum(axis=-1)
