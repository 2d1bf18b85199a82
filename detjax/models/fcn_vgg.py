"""Fully convolutional networks on VGG: FCN-32s, 16s and 8s (Long et al., CVPR 2015).

    b        images
    c        classes
    scores   [b oh ow c] of cells of 32, 16 and 8 pixels
    logits   [b h w c]

The classifier's fully connected layers are convolutions, whose coarse scores a
transposed convolution enlarges that begins as bilinear interpolation. 16s and 8s
enlarge them in two and three steps and add the scores of finer maps between.

No map is padded but the picture, by so much that what the unpadded fc6 leaves covers
all of it. Where each map's cells lie is known to the pixel, so all crops follow.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen

from detjax.backbones.vgg import Encoder, Groups
from detjax.errors import UserError
from detjax.models.pixelwise import Loss, segmenter
from detjax.nn.conv import Conv
from detjax.nn.images import Pixels, normalize
from detjax.nn.pool import max_pool
from detjax.nn.upsample import ConvTranspose, bilinear
from detjax.settings import Count, Dtype, Fraction, Whole
from detjax.types import Array, Model

# By the stride of the finest scores: the layers that enlarge, with the factor of each.
STEPS = {
    32: (("upscore", 32),),
    16: (("upscore2", 2), ("upscore16", 16)),
    8: (("upscore2", 2), ("upscore_pool4", 2), ("upscore8", 8)),
}
# What FCN-8s at once scales maps by before they are scored, so that its skips learn
# from the start (Shelhamer et al. 2017, section 4.2).
AT_ONCE = {"pool4": 0.01, "pool3": 0.0001}


class Placed(NamedTuple):
    """A map, and which pixels of the picture its cells are about."""

    x: Array  # [b oh ow .]
    first: float  # the middle of the first cell, in pixels from the first pixel's
    stride: int  # pixels from a cell to the next


class Net(linen.Module):
    """Images [b h w 3] -> (logits [b h w c],), float32."""

    num_classes: int
    backbone: Groups
    stride: int
    hidden: int
    side: int
    around: int
    dropout: float
    at_once: bool
    pixels: str
    dtype: Any

    @linen.compact
    def __call__(self, images, train: bool = False):
        x = normalize(images, self.pixels, self.dtype)
        pools = []

        def pool(x):
            pools.append(max_pool(x, 2, 2))
            return pools[-1]

        last = self.backbone(x, pool, train)[-1]
        pool(last)
        score = self._scored(pools[-1], train)
        for i, (name, factor) in enumerate(STEPS[self.stride]):
            score = self._enlarged(score, name, factor)
            if factor == 2:
                score = added(score, self._skip(f"pool{4 - i}", pools[3 - i]))
        return (cropped(score, images.shape[1:3]).astype(jnp.float32),)

    def _scored(self, x, train) -> Placed:
        """The coarsest scores, of pool5."""
        if min(x.shape[1:3]) + 2 * self.around < self.side:
            raise UserError(
                f"pool5 is {x.shape[1]} x {x.shape[2]} cells, and fc6 takes {self.side}"
                f" x {self.side}; give larger images, more padding, or a smaller "
                "model.fc6_side"
            )
        sides = {"fc6": (self.side, self.around), "fc7": (1, 0)}
        for name, (side, around) in sides.items():
            layer = Conv(
                self.hidden,
                side,
                padding=around,
                bias=True,
                dtype=self.dtype,
                name=name,
            )
            x = linen.relu(layer(x))
            x = linen.Dropout(self.dropout, deterministic=not train)(x)
        first = self._first(32) + 16 * (self.side - 1) - 32 * self.around
        return Placed(self._score("score_fr", x), first, 32)

    def _skip(self, name, x) -> Placed:
        """Scores of the map `name`, which begin as zeros."""
        stride = {"pool4": 16, "pool3": 8}[name]
        if self.at_once:
            x = x * AT_ONCE[name]
        # At once nothing is learnt before the skips, and zeros would be slow to leave.
        zeros = None if self.at_once else linen.initializers.zeros
        x = self._score(f"score_{name}", x, zeros)
        return Placed(x, self._first(stride), stride)

    def _score(self, name, x, init=None):
        init = init or jax.nn.initializers.lecun_normal()
        kinds: Any = {"bias": True, "kernel_init": init, "dtype": self.dtype}
        return Conv(self.num_classes, 1, name=name, **kinds)(x)

    def _first(self, stride) -> float:
        """The middle of the first cell of a pooled map."""
        return (stride - 1) / 2 - (self.backbone.padding - 1)

    def _enlarged(self, score, name, factor) -> Placed:
        layer = ConvTranspose(
            self.num_classes,
            2 * factor,
            factor,
            bias=False,
            kernel_init=bilinear,
            dtype=self.dtype,
            name=name,
        )
        stride = score.stride // factor
        # A cell's kernel has its middle 2f / 2 cells behind its first, less a half.
        first = score.first - (factor - 0.5) * stride
        return Placed(layer(score.x), first, stride)


def added(a: Placed, b: Placed) -> Placed:
    """The sum of two maps of one stride, where both are."""
    shift = round((a.first - b.first) / a.stride)
    low = max(0, -shift)
    sides = zip(a.x.shape[1:3], b.x.shape[1:3], strict=True)
    h, w = (min(one, other - shift) - low for one, other in sides)
    at = low + shift
    x = a.x[:, low : low + h, low : low + w] + b.x[:, at : at + h, at : at + w]
    return Placed(x, a.first + low * a.stride, a.stride)


def cropped(score: Placed, size: tuple[int, int]) -> Array:
    """What of a map with the pixels' stride is picture, of `size` (h, w).

    Raises UserError where it does not cover the picture.
    """
    low = round(-score.first)
    (h, w), (oh, ow) = size, score.x.shape[1:3]
    if low < 0 or low + h > oh or low + w > ow:
        raise UserError(
            f"scores do not reach the borders of images of {h} x {w}; give more of "
            "model.padding or model.fc6_padding: fc6 of side k takes away k - 1 cells "
            "of 32 pixels"
        )
    return score.x[:, low : low + h, low : low + w]


def fcn_vgg(
    *,
    num_classes: Count,
    stride: Literal[32, 16, 8] = 8,
    at_once: bool = False,
    backbone: Encoder = Encoder(),
    hidden: Count = 4096,
    padding: Count = 100,
    fc6_side: Count = 7,
    fc6_padding: Whole = 0,
    dropout: Fraction = 0.5,
    loss: Loss = Loss(),
    pixels: Pixels = "imagenet",
    dtype: Dtype = "float32",
) -> Model:
    """A fully convolutional network on VGG.

    num_classes: the classes that are told apart; if not set those of the data set.
    stride: pixels along a cell of the finest scores: 32 for FCN-32s, 16 or 8 for those
        with skips.
    at_once: whether the maps that skips score are scaled down first, as in FCN-8s at
        once, which is trained in one stage. Else their scores begin as zeros, so that
        a run that begins with the weights of the next coarser stride goes on with what
        that answers.
    hidden: channels of fc6 and fc7.
    padding: zeros around the picture, in pixels; the original's 100 make it as large
        that the unpadded fc6 covers all of it. 1 is none, and then fc6 is to be padded.
    fc6_side: of fc6's kernel, in cells of 32 pixels; odd.
    fc6_padding: zeros around what fc6 reads, in cells: with padding 1 and
        (fc6_side - 1) / 2 here a small picture costs what it has.
    dropout: after fc6 and fc7, in training.
    loss: of the logits; mean_over="images" is the original's.
    pixels: how images are normalised; see `nn.images.normalize`.
    dtype: of activations; parameters and losses are float32.

    The groups of its parameters are "backbone", "fc", "score" and "upscore"; the paper
    keeps the last of these as they begin. Any size of images is taken. What
    `train.init_from` takes of torchvision's VGG are the convolutions, and fc6 and fc7
    from its classifier.
    """
    if fc6_side % 2 == 0:
        raise UserError(f"model.fc6_side={fc6_side} must be odd")
    kind = jnp.dtype(dtype)
    net = Net(
        num_classes,
        backbone.module(kind, padding=padding),
        stride,
        hidden,
        fc6_side,
        fc6_padding,
        dropout,
        at_once,
        pixels,
        kind,
    )
    groups = {
        "backbone": r"^backbone\.",
        "fc": r"^fc[67]\.",
        "score": r"^score_",
        "upscore": r"^upscore",
    }
    return segmenter(net, num_classes, loss, groups=groups)


# The originals by their names.
ORIGINALS: dict[str, dict[str, Any]] = {
    "fcn32s": {"stride": 32},
    "fcn16s": {"stride": 16},
    "fcn8s": {"stride": 8},
    "fcn8s_at_once": {"stride": 8, "at_once": True},
}
