"""Inception v3 (Szegedy et al., CVPR 2016), with torchvision's state-dict names.

    images   [b h w 3]
    c2..c5   [b h/4 w/4 192], [b h/8 w/8 288], [b h/16 w/16 768], [b h/32 w/32 2048]

The classifier's strided convolutions and poolings have no padding, as published: maps
of 71, 35, 17 and 8 rows from 299. Where the net gives features they are padded, so that
a map has a cell for every 4, 8, 16 and 32 rows, each where it belongs.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen

from detjax.errors import UserError
from detjax.nn import pool
from detjax.nn.conv_norm import ConvNorm
from detjax.nn.images import check_size
from detjax.nn.remat import rematerialised

NAMES = ("inception_v3",)
# The smallest image whose unpadded maps all have a cell.
SMALLEST = 75


class Mixed(linen.Module):
    """Branches side by side; each is a chain of units by name.

    Units are (name, channels, kernel), with "s" after the kernel where they are
    strided; the last one of a branch may be several, which all see the same. `pooled`
    are the channels of the branch that pools first, and 0 where that is all it does.
    """

    branches: tuple[Any, ...]
    pooled: int
    stride: int  # of the strided ones
    padded: bool
    dilation: int
    norm: str
    norm_eps: float
    dtype: Any

    @linen.compact
    def __call__(self, x, train: bool):
        def unit(x, name, channels, kernel):
            strided = kernel == "3s"
            layer = ConvNorm(
                channels,
                3 if strided else kernel,
                self.stride if strided else 1,
                None if self.padded or not strided else 0,
                self.dilation,
                self.norm,
                self.norm_eps,
                self.dtype,
                name=name,
            )
            return layer(x, train)

        found = []
        for branch in self.branches:
            y = x
            for each in branch:
                if isinstance(each[0], str):
                    y = unit(y, *each)
                else:
                    y = jnp.concatenate([unit(y, *one) for one in each], axis=-1)
            found.append(y)
        if self.pooled:
            y = pool.mean3(x, 1, self.dilation)
            found.append(unit(y, "branch_pool", self.pooled, 1))
        else:
            found.append(pool.max3(x, self.stride, self.padded, self.dilation))
        return jnp.concatenate(found, axis=-1)


def _tower(name: str, *units: tuple[int, Any]):
    """A branch whose units are counted: name_1, name_2, ..."""
    return tuple((f"{name}_{i}", *unit) for i, unit in enumerate(units, start=1))


def _a(pooled: int):
    """Figure 5, at stride 8."""
    branches = (
        (("branch1x1", 64, 1),),
        _tower("branch5x5", (48, 1), (64, 5)),
        _tower("branch3x3dbl", (64, 1), (96, 3), (96, 3)),
    )
    return branches, pooled


def _c(inner: int):
    """Figure 6, at stride 16."""
    row, column = (1, 7), (7, 1)
    double = ((inner, 1), (inner, column), (inner, row), (inner, column), (192, row))
    branches = (
        (("branch1x1", 192, 1),),
        _tower("branch7x7", (inner, 1), (inner, row), (192, column)),
        _tower("branch7x7dbl", *double),
    )
    return branches, 192


def _split(name: str):
    """The end of a branch in figure 7."""
    return ((f"{name}a", 384, (1, 3)), (f"{name}b", 384, (3, 1)))


_B = (
    (("branch3x3", 384, "3s"),),
    _tower("branch3x3dbl", (64, 1), (96, 3), (96, "3s")),
)
_D = (
    _tower("branch3x3", (192, 1), (320, "3s")),
    _tower("branch7x7x3", (192, 1), (192, (1, 7)), (192, (7, 1)), (192, "3s")),
)
_E = (
    (("branch1x1", 320, 1),),
    (*_tower("branch3x3", (384, 1)), _split("branch3x3_2")),
    (*_tower("branch3x3dbl", (448, 1), (384, 3)), _split("branch3x3dbl_3")),
)
# The blocks of each stride; the first of the last two strides is strided.
BLOCKS: tuple[dict[str, Any], ...] = (
    {"Mixed_5b": _a(32), "Mixed_5c": _a(64), "Mixed_5d": _a(64)},
    {
        "Mixed_6a": (_B, 0),
        "Mixed_6b": _c(128),
        "Mixed_6c": _c(160),
        "Mixed_6d": _c(160),
        "Mixed_6e": _c(192),
    },
    {"Mixed_7a": (_D, 0), "Mixed_7b": (_E, 192), "Mixed_7c": (_E, 192)},
)


class Auxiliary(linen.Module):
    """Logits [b num_classes] from the last map of stride 16."""

    num_classes: int
    width: int
    norm: str
    norm_eps: float
    dtype: Any

    @linen.compact
    def __call__(self, x, train: bool):
        kinds: Any = (self.norm, self.norm_eps, self.dtype)
        if min(x.shape[1:3]) < 17:
            # What 5x5 means of a map of 17 rows leave, of a smaller image too.
            x = pool.binned(x, 5)
        else:
            x = linen.avg_pool(x, (5, 5), (3, 3))
        x = ConvNorm(4 * self.width, 1, 1, None, 1, *kinds, name="conv0")(x, train)
        x = ConvNorm(24 * self.width, 5, 1, 0, 1, *kinds, name="conv1")(x, train)
        x = x.mean(axis=(1, 2)).astype(jnp.float32)
        return linen.Dense(self.num_classes, name="fc")(x)


class InceptionV3(linen.Module):
    """Features (c2, c3, c4, c5), or class logits [b num_classes] where that is set.

    Fewer than four `stages` give fewer features. With `auxiliary` there is one more
    classifier, on the last map of stride 16, and in training the answer is the logits
    of both, the last layer's first. `width` scales all layers; 32 is the original.
    Below an `output_stride` of 32 the last strides are 1, and what comes after is
    dilated. With `remat` the backward pass computes what is inside each block again
    instead of keeping it. torchvision's and the authors' weights expect pixels
    "inception".

    Raises UserError for a classifier's image of fewer than 75 rows or columns.
    """

    head = r"(fc|AuxLogits\.fc)\."
    auxiliary_head = r"AuxLogits\."
    auxiliary_weight = 0.4  # of its loss: torchvision's recipe

    width: int = 32
    stages: int = 4
    norm: str = "batch"
    norm_eps: float = 1e-3
    num_classes: int | None = None
    dropout: float = 0.5  # before the last layer
    auxiliary: bool = False
    output_stride: int = 32
    remat: bool = False
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, images, train: bool = False):
        classes, padded = self.num_classes, self.num_classes is None
        if not padded:
            check_size(images, SMALLEST, "inception_v3")
        x = self._stem(images, train, padded)
        features, more, stride, dilation = [x], [], 8, 1
        for blocks in BLOCKS[: self.stages - 1]:
            if blocks is BLOCKS[0]:
                x = pool.max3(x, 2, padded)
            for name, (branches, pooled) in blocks.items():
                by = 1
                if pooled == 0 and stride < self.output_stride:
                    by, stride = 2, stride * 2
                x = self._block(name, branches, pooled, by, padded, dilation)(x, train)
                if pooled == 0 and by == 1:
                    dilation *= 2
            features.append(x)
            wanted = self.auxiliary and classes is not None and "Mixed_6e" in blocks
            if wanted and (train or self.is_initializing()):
                kinds: Any = (self.norm, self.norm_eps, self.dtype)
                aux = Auxiliary(classes, self.width, *kinds, name="AuxLogits")
                more.append(aux(x, train))
        if classes is None:
            return tuple(features)
        x = x.mean(axis=(1, 2)).astype(jnp.float32)
        x = linen.Dropout(self.dropout, deterministic=not train)(x)
        logits = linen.Dense(classes, name="fc")(x)
        return (logits, *more) if more and train else logits

    def _stem(self, images, train, padded):
        """Up to the last map of stride 4."""
        x = images
        for name, channels, kernel, stride, around in (
            ("Conv2d_1a_3x3", 32, 3, 2, 0),
            ("Conv2d_2a_3x3", 32, 3, 1, 0),
            ("Conv2d_2b_3x3", 64, 3, 1, 1),
            ("Conv2d_3b_1x1", 80, 1, 1, 0),
            ("Conv2d_4a_3x3", 192, 3, 1, 0),
        ):
            if name == "Conv2d_3b_1x1":
                x = pool.max3(x, 2, padded)
            x = ConvNorm(
                self._scaled(channels),
                kernel,
                stride,
                None if padded else around,
                1,
                self.norm,
                self.norm_eps,
                self.dtype,
                name=name,
            )(x, train)
        return x

    def _block(self, name, branches, pooled, stride, padded, dilation):
        block = rematerialised(Mixed, self.remat)

        def narrowed(branch):
            if isinstance(branch[0], str):
                return branch[0], self._scaled(branch[1]), branch[2]
            return tuple(map(narrowed, branch))

        return block(
            narrowed(branches),
            pooled and self._scaled(pooled),
            stride,
            # At stride 1 a map keeps its size.
            padded or stride == 1,
            dilation,
            self.norm,
            self.norm_eps,
            self.dtype,
            name=name,
        )

    def _scaled(self, channels):
        return max(channels * self.width // 32, 1)


def inception(name: str, /, **kwargs: Any) -> InceptionV3:
    """The member called `name` of `NAMES`; keywords as in `InceptionV3`.

    Raises UserError for an unknown name.
    """
    if name not in NAMES:
        raise UserError(f"no Inception is called {name!r}; choose one of {[*NAMES]}")
    return InceptionV3(**kwargs)
