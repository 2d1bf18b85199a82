"""SqueezeNet 1.0 and 1.1 (Iandola et al. 2016), with torchvision's state-dict names.

    images   [b h w 3]
    c2..c5   1.0: 256, 512, 512 and 512 channels; 1.1: 128, 256, 512 and 512

What the fire modules between two pools leave; the network ends at stride 16, and c5 is
its last map pooled. In classifiers, as published, the first convolution is not padded
and pools round up; where the nets give features both are padded.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen

from detjax.errors import UserError
from detjax.nn.conv import Conv
from detjax.nn.pool import continued, max_pool

# The first convolution (channels of 64, kernel), then the pools ("pool") and the
# channels of fire modules before they expand, to four times as many of either kind.
SPECS: dict[str, tuple[int, int, tuple[int | str, ...]]] = {
    "squeezenet1_0": (96, 7, ("pool", 16, 16, 32, "pool", 32, 48, 48, 64, "pool", 64)),
    "squeezenet1_1": (64, 3, ("pool", 16, 16, "pool", 32, 32, "pool", 48, 48, 64, 64)),
}


class Fire(linen.Module):
    """1x1 to few channels, then 1x1 and 3x3 at once, each of four times as many."""

    squeeze: int
    dtype: Any

    @linen.compact
    def __call__(self, x):
        def convolved(x, channels, kernel, name):
            layer = Conv(channels, kernel, bias=True, dtype=self.dtype, name=name)
            return linen.relu(layer(x))

        x = convolved(x, self.squeeze, 1, "squeeze")
        wide = 4 * self.squeeze
        small = convolved(x, wide, 1, "expand1x1")
        return jnp.concatenate([small, convolved(x, wide, 3, "expand3x3")], axis=-1)


class SqueezeNet(linen.Module):
    """Features (c2, c3, c4, c5), or class logits [b num_classes] where that is set.

    `width` is the first convolution's channels, by which all layers scale; there is no
    normalisation. With `remat` the backward pass computes what is inside each fire
    module again.
    """

    head = r"classifier\.1\."

    channels: int
    kernel: int
    layers: tuple[int | str, ...]
    width: int | None = None  # None: of the original
    stages: int = 4
    num_classes: int | None = None
    dropout: float = 0.5
    remat: bool = False
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, images, train: bool = False):
        width = self.width or self.channels
        fire = linen.remat(Fire) if self.remat else Fire
        x = Conv(
            width,
            self.kernel,
            2,
            padding=self.kernel // 2 if self.num_classes is None else 0,
            bias=True,
            dtype=self.dtype,
            name="features.0",
        )(images)
        x, features = linen.relu(x), []
        pools = 0
        for i, layer in enumerate(self.layers, start=2):
            if isinstance(layer, int):
                squeeze = max(1, layer * width // self.channels)
                x = fire(squeeze, self.dtype, name=f"features.{i}")(x)
                continue
            if pools:
                features.append(x)
            pools += 1
            if pools > self.stages:
                break
            if self.num_classes is None:
                x = linen.max_pool(x, (3, 3), (2, 2), [(1, 1), (1, 1)])
            else:
                x = max_pool(x, 3, 2)
        if self.num_classes is None:
            return continued([*features, x][: self.stages], self.stages)
        x = linen.Dropout(self.dropout, deterministic=not train)(x)
        classes = Conv(
            self.num_classes, 1, bias=True, dtype=self.dtype, name="classifier.1"
        )(x)
        return linen.relu(classes).mean(axis=(1, 2)).astype(jnp.float32)


def squeezenet(name: str, /, *, norm: str = "frozen", **kwargs: Any) -> SqueezeNet:
    """The member called `name` of `SPECS`; keywords as in `SqueezeNet`, and `norm`,
    which it has no use for.

    Raises UserError for an unknown name.
    """
    if name not in SPECS:
        raise UserError(f"no SqueezeNet is called {name!r}; choose one of {[*SPECS]}")
    channels, kernel, layers = SPECS[name]
    return SqueezeNet(channels, kernel, layers, **kwargs)
