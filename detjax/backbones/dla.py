"""Deep layer aggregation, DLA-34 (Yu et al., CVPR 2018), with its authors' names.

    images   [b h w 3]
    c2..c5   [b h/4 w/4 64] .. [b h/32 w/32 512]

A level is a tree of residual blocks; a root joins what two blocks find with what came
before them in the level (hierarchical aggregation, figure 3). Files of the authors have
two layers, `project` of the levels of two trees, that nothing reads; they are left out.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen

from detjax.errors import UserError
from detjax.nn.conv_norm import conv_norm
from detjax.nn.pool import max_pool
from detjax.nn.remat import rematerialised


class Spec(NamedTuple):
    """The depths of the four trees, coarser and coarser."""

    depths: tuple[int, ...]


SPECS = {"dla34": Spec((1, 2, 2, 1))}


class Block(linen.Module):
    """Two 3x3 convolutions, added to what is given: [b h w i] -> [b . . features]."""

    features: int
    stride: int
    kinds: Any

    @linen.compact
    def __call__(self, given, train: bool):
        x, around = given
        n, stride = self.features, self.stride
        y = conv_norm(x, train, n, 3, stride, names=("conv1", "bn1"), **self.kinds)
        names = "conv2", "bn2"
        y = conv_norm(y, train, n, 3, names=names, relu=None, **self.kinds)
        return linen.relu(y + around)


class Root(linen.Module):
    """Maps of one size, joined by a 1x1 convolution."""

    features: int
    kinds: Any

    @linen.compact
    def __call__(self, maps, train: bool):
        x = jnp.concatenate(maps, axis=-1)
        return conv_norm(x, train, self.features, names=("conv", "bn"), **self.kinds)


class Tree(linen.Module):
    """[b h w i] -> [b h/stride w/stride features], of 2^depth blocks.

    `joined` tells whether the last root sees the tree's input too, pooled; `before` are
    the maps of trees before this one that it sees.
    """

    depth: int
    features: int
    stride: int
    joined: bool
    remat: bool
    kinds: Any

    @linen.compact
    def __call__(self, x, train: bool, before: tuple = ()):
        bottom = max_pool(x, self.stride, self.stride) if self.stride > 1 else x
        if self.joined:
            before = (*before, bottom)
        if self.depth > 1:
            first, second = (
                Tree(
                    self.depth - 1,
                    self.features,
                    stride,
                    False,
                    self.remat,
                    self.kinds,
                    name=name,
                )
                for name, stride in (("tree1", self.stride), ("tree2", 1))
            )
            x = first(x, train)
            return second(x, train, (*before, x))
        around = bottom
        if x.shape[-1] != self.features:
            names = "project.0", "project.1"
            around = conv_norm(
                bottom, train, self.features, names=names, relu=None, **self.kinds
            )
        block = rematerialised(Block, self.remat)
        x = block(self.features, self.stride, self.kinds, name="tree1")(
            (x, around), train
        )
        y = block(self.features, 1, self.kinds, name="tree2")((x, x), train)
        root = rematerialised(Root, self.remat)
        return root(self.features, self.kinds, name="root")((y, x, *before), train)


class DLA(linen.Module):
    """Features (c2, c3, c4, c5), or class logits [b num_classes] where that is set.

    Fewer than four `stages` give fewer features. `width` is the first layer's channels.
    Odd sides are rounded up where they are halved. With `remat` the backward pass
    computes what is inside blocks and roots again instead of keeping it.
    """

    head = r"fc\."

    spec: Spec
    width: int = 16
    stages: int = 4
    norm: str = "batch"
    norm_eps: float = 1e-5
    num_classes: int | None = None
    remat: bool = False
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, images, train: bool = False):
        kinds: Any = {
            "kind": self.norm,
            "epsilon": self.norm_eps,
            "dtype": self.dtype,
        }

        def stem(net, x):
            for name, channels, kernel, stride in (
                ("base_layer", net.width, 7, 1),
                ("level0", net.width, 3, 1),
                ("level1", 2 * net.width, 3, 2),
            ):
                names = f"{name}.0", f"{name}.1"
                x = conv_norm(x, train, channels, kernel, stride, names=names, **kinds)
            return x

        x = (linen.remat(stem) if self.remat else stem)(self, images)
        features = []
        for level, depth in enumerate(self.spec.depths[: self.stages], start=2):
            x = Tree(
                depth,
                self.width * 2**level,
                2,
                level > 2,
                self.remat,
                kinds,
                name=f"level{level}",
            )(x, train)
            features.append(x)
        if self.num_classes is None:
            return tuple(features)
        # The authors' is a convolution of the map's mean.
        pooled = x.mean(axis=(1, 2), keepdims=True).astype(jnp.float32)
        return linen.Conv(self.num_classes, (1, 1), name="fc")(pooled)[:, 0, 0]


def dla(name: str, /, **kwargs: Any) -> DLA:
    """The member called `name` of `SPECS`; keywords as in `DLA`.

    Raises UserError for an unknown name.
    """
    if name not in SPECS:
        raise UserError(f"no DLA is called {name!r}; choose one of {[*SPECS]}")
    return DLA(spec=SPECS[name], **kwargs)
