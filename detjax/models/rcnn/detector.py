"""The functions of R-CNN.

b images, p proposals of each, n objects, c classes
q        candidates of one image: its proposals, then its objects
k        crops
"""

import dataclasses
import functools
import tempfile
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from detjax import losses
from detjax.errors import UserError
from detjax.models.rcnn.detect import Detect
from detjax.models.rcnn.net import Backbone, Net, Outputs
from detjax.models.rcnn.ridge import Ridge
from detjax.models.rcnn.sample import Sample, candidates, overlaps
from detjax.models.rcnn.solve import gathered, solve
from detjax.models.rcnn.svm import SVM
from detjax.models.rcnn.warp import Warp, stacked
from detjax.nn.batch import each_image, each_share
from detjax.nn.images import Pixels, normalize, windows
from detjax.nn.start import initialiser
from detjax.ops import boxes
from detjax.settings import Count, Dtype
from detjax.types import Array, Batch, Inputs, Model, Proposals, Spec

GROUPS = {
    "backbone": r"^backbone\.",
    "classifier": r"^cls_score\.",
    "svm": r"^svm\.",
    "ridge": r"^ridge\.",
}


def rcnn(
    *,
    num_classes: Count,
    backbone: Backbone = Backbone(),
    warp: Warp = Warp(),
    sample: Sample = Sample(),
    svm: SVM = SVM(),
    ridge: Ridge = Ridge(),
    detect: Detect = Detect(),
    pixels: Pixels = "imagenet",
    dtype: Dtype = "float32",
) -> Model:
    """R-CNN on external proposals; the defaults are the paper's and its code's.

    num_classes: the classes that are told apart; if not set those of the data set.
    pixels: how images are normalised: by ImageNet's mean and deviation, in the way of
        YOLACT's weights, to 0..1 ("unit"), or not, because float images are already.
    dtype: of activations; parameters and losses are float32.

    A score is the sigmoid of the SVM's margin, so 0.5 is its boundary; before `solve`
    has fitted the SVMs it is the softmax's, and boxes are the proposals'. The
    parameters "svm" and "ridge" are 0 until then; they get no gradient and weight decay
    leaves 0 at 0.

    Raises UserError at the first loss or prediction without proposals.
    """
    net = Net(num_classes, backbone, jnp.dtype(dtype))

    def init(key, images):
        crops = jnp.zeros((1, warp.size, warp.size, 3))
        params, variables = initialiser(net)(key, crops)
        out: Any = jax.eval_shape(net.apply, {"params": params, **variables}, crops)
        return params | unfitted(out, num_classes), variables

    def by_box(params, state, inputs: Inputs, found: Proposals, head):
        """`head` of the outputs for boxes found [b q], a tree of [b q ...]."""

        def of_chunk(crops):
            return head(net.apply({"params": params, **state}, crops))

        # A chunk of boxes of all images would want all images on every device.
        @each_share
        def of_share(inputs, found):
            b, q = found.valid.shape
            stack = stacked(
                normalize(inputs.images, pixels),
                found.boxes.reshape(-1, 4),
                windows(inputs),
                jnp.repeat(jnp.arange(b), q),
            )
            outputs = warp.by_chunks(of_chunk, stack, found.valid.ravel())
            return jax.tree.map(lambda x: x.reshape(b, q, *x.shape[1:]), outputs)

        return of_share(inputs, found)

    def loss(params, state, batch: Batch, key):
        draw, drop = jax.random.split(key)
        found = each_image(candidates)(given(batch.inputs), batch.target)
        label = functools.partial(sample.label, num_classes=num_classes)
        labels, usable = each_image(label)(found, batch.target)
        usable &= batch.inputs.view.valid[:, None]
        places, chosen = sample.draw(draw, labels, usable, background=num_classes)
        stack = stacked(
            normalize(batch.inputs.images, pixels),
            found.boxes.reshape(-1, 4)[places],
            windows(full(batch.inputs)),
            places // labels.shape[1],
        )
        outputs, updated = net.apply(
            {"params": params, **state},
            warp.crops(stack),
            train=True,
            mutable=[*state],
            rngs={"dropout": drop},
        )
        wanted = labels.ravel()[places]
        each = losses.softmax_cross_entropy(outputs.logits, wanted)
        part = losses.masked_mean(each, chosen)
        positives = jnp.sum(chosen & (wanted < num_classes))
        return part, (updated, {"class": part, "positives": positives})

    def predict(params, state, inputs: Inputs):
        found = given(inputs)
        head = functools.partial(scores_and_deltas, params)
        scores, deltas = by_box(params, state, inputs, found, head)
        move = each_image(jax.vmap(boxes.decode_rcnn, in_axes=(1, None), out_axes=1))
        return each_image(detect.detections)(
            scores, move(deltas, found.boxes), found.valid, windows(inputs)
        )

    @jax.jit
    def extract(params, state, batch: Batch):
        found = each_image(candidates)(given(batch.inputs), batch.target)
        known = each_image(functools.partial(overlaps, num_classes=num_classes))(
            found, batch.target
        )
        inputs = full(batch.inputs)
        pooled, spatial = by_box(
            params, state, inputs, found, lambda o: (o.pooled, o.spatial)
        )
        return known, pooled, spatial

    def fit(params, state, batches: Iterable[Batch]):
        with tempfile.TemporaryFile() as first, tempfile.TemporaryFile() as second:
            examples = gathered(
                functools.partial(extract, params, state),
                batches,
                (first, second),
                ridge.near,
            )
            solved = solve(examples, num_classes=num_classes, svm=svm, ridge=ridge)
        return {**params, **jax.tree.map(jnp.asarray, solved)}

    spec = Spec("detection", num_classes, ("proposals",), GROUPS)
    return Model(spec, init, loss, predict, net, fit)


def unfitted(out: Outputs, num_classes: int) -> dict[str, dict[str, Array]]:
    """The parameters of the linear models before they are solved for: 0."""
    f, g = out.pooled.shape[1], out.spatial.shape[1]
    return {
        "svm": {
            "kernel": jnp.zeros((f, num_classes)),
            "bias": jnp.zeros(num_classes),
        },
        "ridge": {
            "kernel": jnp.zeros((num_classes, g, 4)),
            "bias": jnp.zeros((num_classes, 4)),
        },
    }


def scores_and_deltas(params: Any, outputs: Outputs) -> tuple[Array, Array]:
    """Scores [k c] and deltas [k c 4] of crops, by what is fitted so far."""
    svm, ridge = params["svm"], params["ridge"]
    margins = outputs.pooled @ svm["kernel"] + svm["bias"]
    probs = jax.nn.softmax(outputs.logits)[:, :-1]
    deltas = jnp.einsum("kg,cgd->kcd", outputs.spatial, ridge["kernel"])
    fitted = jnp.any(svm["kernel"] != 0)
    scores = jnp.where(fitted, jax.nn.sigmoid(margins), probs)
    return scores, deltas + ridge["bias"]


def full(inputs: Inputs) -> Inputs:
    """The inputs as if pictures filled them: in training crops show the padding too."""
    return dataclasses.replace(inputs, view=None)


def given(inputs: Inputs) -> Proposals:
    """The proposals; raises UserError where there are none."""
    if inputs.proposals is None:
        raise UserError(
            "R-CNN classifies boxes that something else proposes, and none are given; "
            "make the data set with prepare.proposals={'method': 'selective_search'}"
        )
    return inputs.proposals
