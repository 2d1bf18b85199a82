"""Holistically-nested edge detection (Xie and Tu, ICCV 2015).

    b        images
    sides    [b h w 5]: logits of the side outputs, the finest first
    fuse     [b h w 1]: of their weighted sum

Each of VGG's groups of convolutions answers for itself where edges are, and each answer
is supervised; a sixth joins them.
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen

from detjax import losses
from detjax.backbones.vgg import Encoder, Groups
from detjax.errors import UserError
from detjax.models.pixelwise import check_one, enlarged, without_padding
from detjax.nn.conv import Conv
from detjax.nn.images import Pixels, normalize, windows
from detjax.nn.start import initialiser
from detjax.settings import Count, Dtype, Fraction, NonNegative
from detjax.types import Array, Batch, Inputs, Model, Spec, ValueMap


@dataclasses.dataclass(frozen=True)
class Loss:
    """Cross entropy of edges, in which both kinds of pixels count the same.

    With beta the share of an image's pixels that are no edges, an edge counts beta and
    another pixel 1 - beta (eq. 2).

    mean_over: what the sum over an image's pixels is divided by: "images" is the
        paper's, a sum that grows with the image; "pixels" the mean over those that are
        known. Both are averaged over images.
    threshold: the value from which a pixel is an edge.
    sides: weight of each side output's loss beside that of the fused one.
    """

    mean_over: Literal["pixels", "images"] = "pixels"
    threshold: Fraction = 0.5
    sides: NonNegative = 1.0

    def __call__(self, logits: Array, values: Array, valid: Array) -> Array:
        """[b] of logits and edges [b h w], of the pixels that are `valid`."""
        edge = values >= self.threshold
        known = jnp.maximum(valid.sum(axis=(1, 2), keepdims=True), 1)
        beta = (valid & ~edge).sum(axis=(1, 2), keepdims=True) / known
        weights = jnp.where(edge, beta, 1 - beta)
        each = losses.sigmoid_cross_entropy(logits, edge.astype(jnp.float32))
        total = jnp.where(valid, weights * each, 0.0).sum(axis=(1, 2))
        return total if self.mean_over == "images" else total / known[:, 0, 0]


def without_borders(inputs: Inputs) -> Array:
    """The images [b h w 3], each picture's first and last pixels repeated around it.

    Where a picture does not fill its input there would be an edge along its border.
    """
    if inputs.view is None:
        return inputs.images
    rows, columns = (jnp.arange(n) for n in inputs.images.shape[1:3])

    def one(image, window):
        x1, y1, x2, y2 = jnp.round(window).astype(jnp.int32)
        across = jnp.clip(columns, x1, jnp.maximum(x2 - 1, x1))
        return image[jnp.clip(rows, y1, jnp.maximum(y2 - 1, y1))][:, across]

    return jax.vmap(one)(inputs.images, windows(inputs))


class Net(linen.Module):
    """Images [b h w 3] -> (fuse [b h w 1], sides [b h w 5]), float32 logits."""

    backbone: Groups
    pixels: str
    dtype: Any

    @linen.compact
    def __call__(self, images, train: bool = False):
        def pool(x):
            return linen.max_pool(x, (2, 2), (2, 2))

        size = images.shape[1:3]
        if min(size) < 16:
            raise UserError(
                f"images are {size[0]} x {size[1]}; hed takes images of at least 16 "
                "pixels on each side, where its last maps have a cell"
            )
        x = normalize(images, self.pixels, self.dtype)
        small = jax.nn.initializers.normal(0.01)
        sides = []
        for i, left in enumerate(self.backbone(x, pool, train), start=1):
            kinds: Any = {"bias": True, "kernel_init": small, "dtype": self.dtype}
            side = Conv(1, 1, name=f"dsn{i}", **kinds)(left)
            sides.append(enlarged(side, size))
        joined = jnp.concatenate(sides, axis=-1)
        # The mean of the side outputs, to begin with.
        mean = linen.initializers.constant(1 / len(sides))
        fuse = Conv(1, 1, bias=True, kernel_init=mean, name="fuse")(joined)
        return fuse, joined


def hed(
    *,
    num_classes: Count = 1,
    backbone: Encoder = Encoder(),
    loss: Loss = Loss(),
    pixels: Pixels = "fcn",
    dtype: Dtype = "float32",
) -> Model:
    """HED, whose answer is the probability of an edge at each pixel.

    num_classes: 1, the edges: the one quantity of its data sets.
    pixels: how images are normalised; see `nn.images.normalize`.
    dtype: of activations; parameters and losses are float32.

    Its answers are `ValueMap`s between 0 and 1. What lies around a picture that does
    not fill its input is not seen: the picture's border goes on there.

    The groups of its parameters are "backbone", "side" and "fuse"; the authors'
    learning rates for the last two are a hundredth and a thousandth. In training "fuse"
    among the metrics is the loss of the fused output, "sides" the weighted sum of the
    others'. Images have 16 pixels on each side at least.
    """
    check_one(num_classes, "hed")
    kind = jnp.dtype(dtype)
    net = Net(backbone.module(kind), pixels, kind)

    def total(params, state, batch: Batch, key):
        (fuse, sides), updated = net.apply(
            {"params": params, **state},
            without_borders(batch.inputs),
            train=True,
            mutable=[*state],
        )
        target: ValueMap = batch.target
        known = jnp.ones(fuse.shape[:3], bool) if target.valid is None else target.valid
        valid, real = without_padding(known, batch), batch.inputs.view.valid

        def mean_of(logits):
            each = loss(logits, target.values, valid)
            return losses.masked_mean(each, real)

        found = mean_of(fuse[..., 0])
        others = jax.vmap(mean_of, in_axes=-1)(sides).sum() * loss.sides
        return found + others, (updated, {"fuse": found, "sides": others})

    def predict(params, state, inputs: Inputs) -> ValueMap:
        fuse, _ = net.apply({"params": params, **state}, without_borders(inputs))
        return ValueMap(jax.nn.sigmoid(fuse[..., 0]))

    groups = {"backbone": r"^backbone\.", "side": r"^dsn\d\.", "fuse": r"^fuse\."}
    spec = Spec("dense", num_classes, groups=groups)
    return Model(spec, initialiser(net), total, predict, net)
