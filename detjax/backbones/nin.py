"""Network in Network (Lin et al., ICLR 2014), with the names of the authors' networks.

A 1x1 convolution after a convolution is a small network at every cell, which mixes its
channels; the last one has a map for each class, and their means are the logits.
`nin_imagenet` is the authors' network of Caffe's model zoo, `nin_cifar10` that of
their CIFAR-10 experiment.

    images        [b h w 3]
    c2..c5        [b h/4 w/4 96], [b h/8 w/8 256], [b h/16 w/16 384], [b h/32 w/32 1024]
    nin_cifar10   [b h/4 w/4 192], and its maxima at strides 8, 16 and 32

The classifier's first convolution of `nin_imagenet` has no padding, as published; where
the net gives features it is padded.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen

from detjax.errors import UserError
from detjax.nn import pool
from detjax.nn.conv import Conv


class Conved(NamedTuple):
    """A convolution and ReLU; the last one of a net has as many channels as classes."""

    name: str
    channels: int
    kernel: int = 1
    stride: int = 1
    padding: int | None = None


class Pooled(NamedTuple):
    """Maxima of 3x3 cells at every second row and column."""

    name: str


class Spec(NamedTuple):
    """What tells the members of the family apart."""

    layers: tuple[Any, ...]
    width: int  # channels of the first convolution
    features: tuple[str, ...]  # the layers whose maps are features


_IMAGENET = (
    Conved("conv1", 96, 11, 4, 0),
    Conved("cccp1", 96),
    Conved("cccp2", 96),
    Pooled("pool0"),
    Conved("conv2", 256, 5),
    Conved("cccp3", 256),
    Conved("cccp4", 256),
    Pooled("pool2"),
    Conved("conv3", 384, 3),
    Conved("cccp5", 384),
    Conved("cccp6", 384),
    Pooled("pool3"),
    "dropout",
    Conved("conv4-1024", 1024, 3),
    Conved("cccp7-1024", 1024),
    Conved("cccp8-1024", 0),
)
_CIFAR10 = (
    Conved("conv1", 192, 5),
    Conved("cccp1", 160),
    Conved("cccp2", 96),
    Pooled("pool1"),
    "dropout",
    Conved("conv2", 192, 5),
    Conved("cccp3", 192),
    Conved("cccp4", 192),
    Pooled("pool2"),
    "dropout",
    Conved("conv3", 192, 3),
    Conved("cccp5", 192),
    Conved("cccp6", 0),
)
SPECS = {
    "nin_imagenet": Spec(_IMAGENET, 96, ("cccp2", "cccp4", "cccp6", "cccp7-1024")),
    "nin_cifar10": Spec(_CIFAR10, 192, ("cccp5",)),
}


class NIN(linen.Module):
    """Features (c2, c3, c4, c5), or class logits [b num_classes] where that is set.

    Fewer than four `stages` give fewer features. `width` is of the first convolution,
    the published one if None; others are scaled with it. There is no norm: `norm` is
    for those who set it for any backbone. With `remat` the backward pass computes each
    convolution's answer again instead of keeping it.
    """

    spec: Spec
    width: int | None = None
    stages: int = 4
    norm: str = "batch"
    num_classes: int | None = None
    dropout: float = 0.5  # of a classifier's maps, where the original drops some
    remat: bool = False
    dtype: Any = jnp.float32

    @property
    def head(self) -> str:
        """The layer whose size is that of the classes."""
        return rf"{self.spec.layers[-1].name}\."

    @linen.compact
    def __call__(self, images, train: bool = False):
        width = self.width or self.spec.width
        rectified: Any = _rectified
        if self.remat:
            rectified = linen.remat(_rectified, static_argnums=(2, 3))
        x, features = images.astype(self.dtype), []
        for layer in self.spec.layers:
            if isinstance(layer, Pooled):
                x = pool.max_pool(x, 3, 2)
                self.sow("intermediates", layer.name, x)
            elif layer == "dropout":
                if self.num_classes is None:
                    continue
                x = linen.Dropout(self.dropout, deterministic=not train)(x)
            elif layer.channels or self.num_classes:
                channels = layer.channels * width // self.spec.width
                channels = max(channels, 1) if layer.channels else self.num_classes
                classified = self.num_classes is not None
                padding = layer.padding if classified else None
                x = rectified(self, x, layer._replace(padding=padding), channels)
                if layer.name in self.spec.features:
                    features.append(x)
            if not self.num_classes and len(features) == self._needed:
                return pool.continued(features, self.stages)
        return x.astype(jnp.float32).mean(axis=(1, 2))

    @property
    def _needed(self) -> int:
        """How many features are layers of the net."""
        return min(self.stages, len(self.spec.features))


def _rectified(net, x, layer, channels):
    """A convolution of `net`; ReLU follows it even on the maps of classes."""
    conv = Conv(
        channels,
        layer.kernel,
        layer.stride,
        layer.padding,
        bias=True,
        dtype=net.dtype,
        name=layer.name,
    )
    return linen.relu(conv(x))


def nin(name: str, /, **kwargs: Any) -> NIN:
    """The member called `name` of `SPECS`; keywords as in `NIN`.

    Raises UserError for an unknown name.
    """
    if name not in SPECS:
        raise UserError(
            f"no Network in Network is called {name!r}; choose one of {[*SPECS]}"
        )
    return NIN(spec=SPECS[name], **kwargs)
