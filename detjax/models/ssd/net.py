"""SSD's networks: maps that get coarser, and two convolutions on each.

images   [b h w 3]
maps     [b h/8 w/8 .] and coarser, one a level
"""

import dataclasses
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from detjax import backbones
from detjax.backbones import vgg
from detjax.errors import UserError
from detjax.models.ssd.priors import Priors
from detjax.nn.images import normalize
from detjax.nn.norm import Norm, norm
from detjax.ops import anchors
from detjax.settings import Count, NotEmpty, Range, Whole
from detjax.types import Array

xavier = jax.nn.initializers.xavier_uniform()


@dataclasses.dataclass(frozen=True)
class Extras:
    """Coarser levels: each a 1x1 convolution to half its channels, then a larger one.

    features: channels of each level.
    kernels, strides, paddings: of the second convolution of each.

    The defaults are those of inputs of 300 pixels: the last two have no padding.
    """

    features: tuple[Count, ...] = (512, 256, 256, 256)
    kernels: tuple[Count, ...] = (3, 3, 3, 3)
    strides: tuple[Count, ...] = (2, 2, 1, 1)
    paddings: tuple[Whole, ...] = (1, 1, 0, 0)

    def layers(self) -> list[tuple[int, int, int, int]]:
        """(features, kernel, stride, padding) of each level."""
        each = self.features, self.kernels, self.strides, self.paddings
        return list(zip(*each, strict=True))


@dataclasses.dataclass(frozen=True)
class Backbone:
    """The network below the extra levels.

    name: of a VGG, whose fully connected layers become the second level, as in the
        paper; or of another network, whose features are the first levels.
    width: channels of its first stage; the published ones if None.
    norm: of all its layers, and of the extra levels; VGGs without one have none.
    levels: the numbers of the features that are read, rising, of other networks than
        VGGs; level k has stride 2^k.
    remat: trains in less memory and more time, of other networks than VGGs.
    """

    name: backbones.Name = "vgg16"
    width: Count | None = None
    norm: Norm = "batch"
    levels: Annotated[tuple[Annotated[int, Range(2, 5)], ...], NotEmpty()] = (3, 4, 5)
    remat: bool = False

    @property
    def is_vgg(self) -> bool:
        return self.name in vgg.SPECS

    @property
    def maps(self) -> int:
        """The levels before the extra ones."""
        return 2 if self.is_vgg else len(self.levels)

    def module(self, extras: Extras, dtype: Any) -> linen.Module:
        """Normalised images -> maps."""
        if self.is_vgg:
            groups, width = vgg.SPECS[self.name], self.width or 64
            return VGGMaps(groups, extras, width=width, dtype=dtype)
        body = backbones.make(
            self.name,
            width=self.width,
            stages=max(self.levels) - 1,
            norm=self.norm,
            remat=self.remat,
            dtype=dtype,
        )
        return Maps(body, tuple(self.levels), extras, norm=self.norm, dtype=dtype)


def conv(
    features, kernel, name, dtype, *, stride=1, padding=None, dilation=1, bias=True
):
    return linen.Conv(
        features,
        (kernel, kernel),
        strides=stride,
        padding=kernel // 2 if padding is None else padding,
        kernel_dilation=dilation,
        use_bias=bias,
        kernel_init=xavier,
        dtype=dtype,
        name=name,
    )


class VGGMaps(linen.Module):
    """The paper's maps: conv4_3, the fully connected layers, and the extra levels.

    fc6 and fc7 are convolutions of 16 times `width` channels, fc6 dilated by 6. Names
    are torchvision's.
    """

    groups: tuple[int, ...]
    extras: Extras
    width: int = 64
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, x, train: bool = False):
        layer = 0
        for i, depth in enumerate(self.groups[:4]):
            if i:
                # 75 rows become 38, in the third.
                x, layer = pooled(x, ceil=i == 3), layer + 1
            x = self._group(x, i, f"features.{layer}")
            layer += 2 * depth
        maps = [self._scaled(x)]
        x = self._group(pooled(x), 4, "extra.0.1")
        x = linen.max_pool(x, (3, 3), padding=((1, 1), (1, 1)))
        last = f"extra.0.{1 + 2 * self.groups[4]}"
        wide = 16 * self.width
        x = conv(wide, 3, f"{last}.1", self.dtype, padding=6, dilation=6)(x)
        x = conv(wide, 1, f"{last}.3", self.dtype)(linen.relu(x))
        maps.append(linen.relu(x))
        return (*maps, *coarser(maps[-1], self.extras, None, train, self.dtype))

    def _group(self, x, i, first):
        """A group's convolutions, named from `first` on, past the ReLUs between."""
        before, _, layer = first.rpartition(".")
        for j in range(self.groups[i]):
            name = f"{before}.{int(layer) + 2 * j}"
            x = linen.relu(conv(self.width * min(2**i, 8), 3, name, self.dtype)(x))
        return x

    def _scaled(self, x):
        """[b h w c] of a learnt length at each place (Liu et al. 2015, ParseNet)."""
        scale = self.param(
            "scale_weight", linen.initializers.constant(20.0), x.shape[-1:]
        )
        values = x.astype(jnp.float32)
        length = jnp.square(values).sum(axis=-1, keepdims=True)
        unit = values * jax.lax.rsqrt(jnp.maximum(length, 1e-24))
        return (scale * unit).astype(self.dtype)


class Maps(linen.Module):
    """Features of a backbone, and the extra levels."""

    body: linen.Module
    levels: tuple[int, ...]
    extras: Extras
    norm: str = "batch"
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, x, train: bool = False):
        found = self.body(x, train)
        maps = [found[i - 2] for i in self.levels]
        return (*maps, *coarser(maps[-1], self.extras, self.norm, train, self.dtype))


def pooled(x: Array, ceil: bool = False) -> Array:
    """Maxima of 2x2; an odd last row or column is left out, or with `ceil` kept."""
    padding = [(0, side % 2 if ceil else 0) for side in x.shape[1:3]]
    return linen.max_pool(x, (2, 2), (2, 2), padding)


def coarser(x: Array, extras: Extras, kind: str | None, train: bool, dtype: Any):
    """The extra levels behind the map x, with norms of that `kind` or none.

    To be called inside a compact module. Raises UserError where one would be empty.
    """

    def layer(x, features, kernel, name, index, **options):
        full = f"{name}.{index * (2 if kind is None else 3)}"
        x = conv(features, kernel, full, dtype, bias=kind is None, **options)(x)
        if kind is not None:
            normed = f"{name}.{index * 3 + 1}"
            x = norm(kind, name=normed, channels=features, train=train, dtype=dtype)(x)
        return linen.relu(x)

    maps = []
    for i, (features, kernel, stride, padding) in enumerate(extras.layers(), start=1):
        if min(x.shape[1:3]) + 2 * padding < kernel:
            raise UserError(
                f"the map before extra level {i} has {x.shape[1:3]} cells, too few for "
                f"a kernel of {kernel} with padding {padding}: give larger images, "
                "fewer extra levels, or more model.extras.paddings"
            )
        x = layer(x, features // 2, 1, f"extra.{i}", 0)
        x = layer(x, features, kernel, f"extra.{i}", 1, stride=stride, padding=padding)
        maps.append(x)
    return maps


class Convs(linen.Module):
    """A 3x3 convolution on each map -> [b p width], joined over the maps."""

    width: int
    per_location: tuple[int, ...]
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, maps):
        found = []
        for i, (x, count) in enumerate(zip(maps, self.per_location, strict=True)):
            layer = conv(self.width * count, 3, f"module_list.{i}", self.dtype)
            found.append(layer(x).reshape(x.shape[0], -1, self.width))
        return jnp.concatenate(found, axis=1).astype(jnp.float32)


class Heads(linen.Module):
    """torchvision's `head`: maps -> logits [b p c+1], deltas [b p 4]."""

    classification_head: linen.Module
    regression_head: linen.Module

    def __call__(self, maps):
        return self.classification_head(maps), self.regression_head(maps)


class Outputs(NamedTuple):
    """The network's outputs for a batch, and its priors."""

    levels: tuple[Array, ...]  # [b h w .]
    logits: Array  # [b p c+1], the background last
    deltas: Array  # [b p 4]
    priors: np.ndarray  # [p 4], a constant of the input's shape


class Net(linen.Module):
    """Images [b h w 3] -> `Outputs`."""

    priors: Priors
    backbone: linen.Module
    head: Heads
    num_classes: int
    pixels: str
    dtype: Any

    def __call__(self, images, train: bool = False) -> Outputs:
        x = normalize(images, self.pixels, self.dtype)
        levels = self.backbone(x, train)
        shapes = [level.shape[1:3] for level in levels]
        placed = anchors.placed(self.priors.levels(shapes, images.shape[1:3]))
        logits, deltas = self.head(levels)
        return Outputs(levels, logits, deltas, placed)


def heads(num_classes: int, per_location: tuple[int, ...], dtype: Any) -> Heads:
    """The module of both heads."""
    return Heads(
        Convs(num_classes + 1, per_location, dtype), Convs(4, per_location, dtype)
    )
