"""DenseNet (Huang et al., CVPR 2017), with torchvision's state-dict names.

images   [b h w 3]
c2..c5   [b h/4 w/4 .] .. [b h/32 w/32 .]: all maps of a dense block, normalised and
         rectified as what comes after it sees them
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen

from detjax.errors import UserError
from detjax.nn.conv import Conv
from detjax.nn.norm import norm
from detjax.nn.remat import rematerialised


class Spec(NamedTuple):
    """What tells the members of the family apart."""

    blocks: tuple[int, ...]  # layers of each dense block
    growth: int = 32  # maps that a layer adds
    width: int = 64  # of the stem


SPECS = {
    "densenet121": Spec((6, 12, 24, 16)),
    "densenet161": Spec((6, 12, 36, 24), growth=48, width=96),
    "densenet169": Spec((6, 12, 32, 32)),
    "densenet201": Spec((6, 12, 48, 32)),
}
BOTTLENECK = 4  # maps of the 1x1 convolution for each that a layer adds


class DenseLayer(linen.Module):
    """The maps [b h w growth] that a layer adds to those that it sees."""

    growth: int
    dilation: int
    dropout: float
    norm: str
    norm_eps: float
    dtype: Any

    @linen.compact
    def __call__(self, x, train: bool):
        for i, channels, kernel in (
            (1, BOTTLENECK * self.growth, 1),
            (2, self.growth, 3),
        ):
            x = norm(
                self.norm,
                name=f"norm{i}",
                channels=x.shape[-1],
                train=train,
                epsilon=self.norm_eps,
                dtype=self.dtype,
            )(x)
            x = Conv(
                channels,
                kernel,
                dilation=1 if kernel == 1 else self.dilation,
                dtype=self.dtype,
                name=f"conv{i}",
            )(linen.relu(x))
        return linen.Dropout(self.dropout, deterministic=not train)(x)


class DenseNet(linen.Module):
    """Features (c2, c3, c4, c5), or class logits [b num_classes] where that is set.

    Fewer than four `stages` give fewer features. `width` is of the stem, the published
    one if None; the growth is scaled with it. Below an `output_stride` of 32 the last
    transitions do not pool, and the 3x3 convolutions after them are dilated. In
    training `dropout` follows every layer. With `remat` the backward pass computes what
    is inside each layer again instead of keeping it.
    """

    head = r"classifier\."

    spec: Spec
    width: int | None = None
    stages: int = 4
    norm: str = "batch"
    norm_eps: float = 1e-5
    num_classes: int | None = None
    dropout: float = 0.0
    output_stride: int = 32
    remat: bool = False
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, images, train: bool = False):
        width = self.width or self.spec.width
        growth = max(self.spec.growth * width // self.spec.width, 1)
        layer = rematerialised(DenseLayer, self.remat)
        x = Conv(width, 7, 2, dtype=self.dtype, name="features.conv0")(images)
        x = self._rectified(x, "features.norm0", train)
        x = linen.max_pool(x, (3, 3), (2, 2), [(1, 1), (1, 1)])
        features, stride, dilation = [], 4, 1
        for i, depth in enumerate(self.spec.blocks[: self.stages], start=1):
            if i > 1:
                name = f"features.transition{i - 1}.conv"
                x = Conv(x.shape[-1] // 2, 1, dtype=self.dtype, name=name)(x)
                if stride < self.output_stride:
                    x, stride = _halved(x), stride * 2
                else:
                    dilation *= 2
            for j in range(1, depth + 1):
                new = layer(
                    growth,
                    dilation,
                    self.dropout,
                    self.norm,
                    self.norm_eps,
                    self.dtype,
                    name=f"features.denseblock{i}.denselayer{j}",
                )(x, train)
                x = jnp.concatenate([x, new], axis=-1)
            last = i == len(self.spec.blocks)
            name = "features.norm5" if last else f"features.transition{i}.norm"
            x = self._rectified(x, name, train)
            features.append(x)
        if self.num_classes is None:
            return tuple(features)
        pooled = x.mean(axis=(1, 2)).astype(jnp.float32)
        return linen.Dense(self.num_classes, name="classifier")(pooled)

    def _rectified(self, x, name, train):
        layer = norm(
            self.norm,
            name=name,
            channels=x.shape[-1],
            train=train,
            epsilon=self.norm_eps,
            dtype=self.dtype,
        )
        return linen.relu(layer(x))


def _halved(x):
    """Means of 2x2 cells; a map of one cell stays."""
    window = tuple(min(side, 2) for side in x.shape[1:3])
    return linen.avg_pool(x, window, (2, 2))


def densenet(name: str, /, **kwargs: Any) -> DenseNet:
    """The member called `name` of `SPECS`; keywords as in `DenseNet`.

    Raises UserError for an unknown name.
    """
    if name not in SPECS:
        raise UserError(f"no DenseNet is called {name!r}; choose one of {[*SPECS]}")
    return DenseNet(spec=SPECS[name], **kwargs)
