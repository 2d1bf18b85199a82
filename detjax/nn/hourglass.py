"""The stacked hourglass network (Newell et al., ECCV 2016), as CornerNet has it.

    images     [b h w 3], normalised
    features   [b h/s w/s features], s the stride of the stem, 4 or 8

An hourglass halves its map `depth` times and doubles it again, and adds at every size
what the map was on the way down. Law and Deng 2018 (CornerNet), section 3.5: no
pooling, strides of 2 take its place; the features of one hourglass and what it saw are
joined to what the next one sees. Modules have the names of CornerNet's files.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen

from detjax.nn.conv_norm import ConvNorm, conv_norm
from detjax.nn.hourglass_fire import Fire
from detjax.nn.remat import rematerialised
from detjax.nn.upsample import ConvTranspose


class Residual(linen.Module):
    """Two 3x3 convolutions and what they saw: [b h w i] -> [b h/stride . features]."""

    features: int
    stride: int = 1
    norm: str = "batch"
    norm_eps: float = 1e-5
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, x, train: bool):
        kinds: Any = {
            "kind": self.norm,
            "epsilon": self.norm_eps,
            "dtype": self.dtype,
        }
        n, stride = self.features, self.stride
        y = conv_norm(x, train, n, 3, stride, names=("conv1", "bn1"), **kinds)
        y = conv_norm(y, train, n, 3, names=("conv2", "bn2"), relu=None, **kinds)
        if stride != 1 or x.shape[-1] != n:
            names = "skip.0", "skip.1"
            x = conv_norm(x, train, n, 1, stride, names=names, relu=None, **kinds)
        return linen.relu(x + y)


BLOCKS: dict[str, Any] = {"residual": Residual, "fire": Fire}


class Hourglass(linen.Module):
    """One hourglass: [b h w dims[0]] -> the same shape.

    The map is halved as many times as there are `dims` after the first; `modules` are
    the blocks at each size. A side that is odd is rounded up, and cut when it is
    doubled again.
    """

    dims: tuple[int, ...]
    modules: tuple[int, ...]
    block: str = "residual"
    norm: str = "batch"
    norm_eps: float = 1e-5
    remat: bool = False
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, x, train: bool):
        here, below = self.dims[:2]
        count = self.modules[0]
        up = self._blocks(x, "up1", [here] * count, train)
        low = self._blocks(x, "low1", [below] * count, train, stride=2)
        if len(self.dims) > 2:
            low = Hourglass(
                self.dims[1:],
                self.modules[1:],
                self.block,
                self.norm,
                self.norm_eps,
                self.remat,
                self.dtype,
                name="low2",
            )(low, train)
        else:
            low = self._blocks(low, "low2", [below] * self.modules[1], train)
        low = self._blocks(low, "low3", [below] * (count - 1) + [here], train)
        return up + self._doubled(low, up.shape[1:3])

    def _blocks(self, x, name, widths, train, stride=1):
        """Blocks of `widths` one after the other, the first of `stride`."""
        block = rematerialised(BLOCKS[self.block], self.remat)
        for i, features in enumerate(widths):
            x = block(
                features,
                stride if i == 0 else 1,
                self.norm,
                self.norm_eps,
                self.dtype,
                name=f"{name}.{i}",
            )(x, train)
        return x

    def _doubled(self, x, size):
        """[b h w c] at twice the size, cut to `size`.

        CornerNet-Squeeze learns how; CornerNet repeats each cell.
        """
        if self.block == "fire":
            x = ConvTranspose(
                x.shape[-1], 4, 2, padding=1, dtype=self.dtype, name="up2"
            )(x)
        else:
            x = x.repeat(2, axis=1).repeat(2, axis=2)
        return x[:, : size[0], : size[1]]


class StackedHourglass(linen.Module):
    """Images -> the features of every hourglass, a tuple, the last the best.

    `stacks` hourglasses of `dims`, `modules` and `block` ("residual", or "fire" of
    CornerNet-Squeeze) on a stem of a 7x7 convolution and residual blocks of stride 2,
    which make `stride`. A 3x3 convolution to `features` follows each hourglass: what a
    loss looks at after each of them (intermediate supervision). In training, statistics
    of norms are those of the batch if `norm` is "batch"; with `remat` blocks are
    computed again for the gradient.
    """

    stacks: int = 2
    dims: tuple[int, ...] = (256, 256, 384, 384, 384, 512)
    modules: tuple[int, ...] = (2, 2, 2, 2, 2, 4)
    features: int = 256
    stride: int = 4
    block: str = "residual"
    norm: str = "batch"
    norm_eps: float = 1e-5
    remat: bool = False
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, images, train: bool = False):
        kinds: Any = {
            "norm": self.norm,
            "norm_eps": self.norm_eps,
            "dtype": self.dtype,
        }
        width = self.dims[0]
        residual = rematerialised(Residual, self.remat)
        x = ConvNorm(width // 2, 7, 2, **kinds, name="pre.0")(images, train)
        for i in range(1, self.stride.bit_length() - 1):
            x = residual(width, 2, **kinds, name=f"pre.{i}")(x, train)
        found = []
        for i in range(self.stacks):
            y = Hourglass(
                self.dims,
                self.modules,
                self.block,
                remat=self.remat,
                **kinds,
                name=f"kps.{i}",
            )(x, train)
            y = ConvNorm(self.features, 3, **kinds, name=f"cnvs.{i}")(y, train)
            found.append(y)
            if i < self.stacks - 1:
                x = linen.relu(
                    self._linear(x, f"inters_.{i}", train)
                    + self._linear(y, f"cnvs_.{i}", train)
                )
                x = residual(width, **kinds, name=f"inters.{i}")(x, train)
        return tuple(found)

    def _linear(self, x, name, train):
        """A 1x1 convolution to the width of an hourglass, and its norm."""
        return conv_norm(
            x,
            train,
            self.dims[0],
            names=(f"{name}.0", f"{name}.1"),
            relu=None,
            kind=self.norm,
            epsilon=self.norm_eps,
            dtype=self.dtype,
        )
