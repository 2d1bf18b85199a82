"""Xception (Chollet, CVPR 2017), and its aligned form (Chen et al., DeepLabV3+, 2018).

`xception` has the state-dict names of timm's legacy_xception, `xception_aligned` those
of the PyTorch DeepLabV3+ that its published weights are for: sixteen blocks in the
middle flow instead of eight, strided separable convolutions instead of poolings, batch
norm between the halves of a separable convolution too.

    images   [b h w 3]
    c2..c5   [b h/4 w/4 128], [b h/8 w/8 256], [b h/16 w/16 728], [b h/32 w/32 2048]:
             what blocks 1, 2 and the last of the middle flow leave, rectified as the
             next one sees it, and the last layer's

The classifier's two first convolutions of `xception` have no padding, as published.
Where the net gives features they are padded, so that a map's cells lie where they
belong.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen

from detjax.errors import UserError
from detjax.nn import pool
from detjax.nn.conv import Conv
from detjax.nn.norm import norm
from detjax.nn.remat import rematerialised


class Spec(NamedTuple):
    """What tells the members of the family apart."""

    middle: int  # blocks of the middle flow
    last: tuple[int, ...]  # channels of the layers after the last block
    aligned: bool


SPECS = {
    "xception": Spec(8, (1536, 2048), aligned=False),
    "xception_aligned": Spec(16, (1536, 1536, 2048), aligned=True),
}


class Separable(linen.Module):
    """A depthwise 3x3 convolution and a 1x1 one, with a norm between if `normed`.

    Chollet 2017, section 2.
    """

    features: int
    stride: int
    dilation: int
    normed: bool
    norm: str
    norm_eps: float
    dtype: Any

    @linen.compact
    def __call__(self, x, train: bool):
        channels = x.shape[-1]
        x = Conv(
            channels,
            3,
            self.stride,
            groups=channels,
            dilation=self.dilation,
            dtype=self.dtype,
            name="conv1",
        )(x)
        if self.normed:
            x = norm(
                self.norm,
                name="bn",
                channels=channels,
                train=train,
                epsilon=self.norm_eps,
                dtype=self.dtype,
            )(x)
        return Conv(self.features, 1, dtype=self.dtype, name="pointwise")(x)


class Block(linen.Module):
    """Separable convolutions, each rectified before and normalised after, and a skip.

    `channels` of the convolutions. A block that is `last` of its stage has a
    convolution on its skip, and ends with a pooling; in the aligned form with a
    convolution that is not dilated, and there the skip sees what is rectified.
    """

    channels: tuple[int, ...]
    stride: int
    dilation: int
    relu: bool  # before the first convolution
    last: bool
    aligned: bool
    norm: str
    norm_eps: float
    dtype: Any

    @linen.compact
    def __call__(self, x, train: bool):
        def normed(x, name):
            layer = norm(
                self.norm,
                name=name,
                channels=x.shape[-1],
                train=train,
                epsilon=self.norm_eps,
                dtype=self.dtype,
            )
            return layer(x)

        kinds: Any = (self.aligned, self.norm, self.norm_eps, self.dtype)
        y = linen.relu(x) if self.relu else x
        x = y if self.aligned else x
        # The original counts ReLUs too.
        number = int(self.relu)
        for i, channels in enumerate(self.channels):
            stride, dilation = 1, self.dilation
            if self.aligned and i == len(self.channels) - 1:
                stride = self.stride
                dilation = 1 if self.last else dilation
            y = linen.relu(y) if i else y
            name = f"rep.{number}"
            y = Separable(channels, stride, dilation, *kinds, name=name)(y, train)
            y = normed(y, f"rep.{number + 1}")
            number += 3
        if self.last and not self.aligned:
            y = pool.max3(y, self.stride, dilation=self.dilation)
        if self.last:
            x = Conv(y.shape[-1], 1, self.stride, dtype=self.dtype, name="skip")(x)
            x = normed(x, "skipbn")
        return x + y


class Xception(linen.Module):
    """Features (c2, c3, c4, c5), or class logits [b num_classes] where that is set.

    Fewer than four `stages` give fewer features. `width` scales all layers; 32 is the
    original. Below an `output_stride` of 32 the last strides are 1, and what comes
    after is dilated, by 2 and 4 at an output stride of 8. With `remat` the backward
    pass computes what is inside each block again instead of keeping it. timm's weights
    expect pixels "inception".
    """

    head = r"fc\."

    spec: Spec
    width: int = 32
    stages: int = 4
    norm: str = "batch"
    norm_eps: float = 1e-5
    num_classes: int | None = None
    dropout: float = 0.5  # before the last layer
    output_stride: int = 32
    remat: bool = False
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, images, train: bool = False):
        x = self._stem(images, train)
        features, stride, dilation = [], 2, 1
        exit_flow = self.spec.middle + 4
        for i in range(1, 5 + self.spec.middle):
            if i > (1, 2, exit_flow - 1, exit_flow)[self.stages - 1]:
                break
            last = i in (1, 2, 3, exit_flow)
            by = 2 if last and stride < self.output_stride else 1
            x = self._block(i, by, last, dilation, x, train)
            stride *= by
            dilation *= 2 if last and by == 1 else 1
            if i in (1, 2, exit_flow - 1):
                features.append(linen.relu(x))
        if self.stages > 3:
            x = self._last(x, dilation, train)
            features.append(x)
        if self.num_classes is None:
            return tuple(features)
        x = x.mean(axis=(1, 2)).astype(jnp.float32)
        x = linen.Dropout(self.dropout, deterministic=not train)(x)
        return linen.Dense(self.num_classes, name="fc")(x)

    def _stem(self, images, train):
        padded = self.spec.aligned or self.num_classes is None
        x = images
        for i, channels in ((1, 32), (2, 64)):
            around = None if padded else 0
            kinds: Any = {"dtype": self.dtype, "name": f"conv{i}"}
            x = Conv(self._scaled(channels), 3, 3 - i, around, **kinds)(x)
            x = linen.relu(self._normed(x, f"bn{i}", train))
        return x

    def _block(self, i, stride, last, dilation, x, train):
        block = rematerialised(Block, self.remat)
        exit_flow = self.spec.middle + 4
        middle = self._scaled(728)
        if i == exit_flow:
            channels: tuple[int, ...] = (middle, self._scaled(1024))
        elif last:
            channels = (self._scaled((128, 256, 728)[i - 1]),) * 2
        else:
            channels = (middle,) * 3
        if self.spec.aligned and last:
            channels = (*channels, channels[-1])
        # Before the aligned form's second block the map is rectified already.
        rectified = i > 1
        if self.spec.aligned and i == 2:
            x, rectified = linen.relu(x), False
        return block(
            channels,
            stride,
            dilation,
            rectified,
            last,
            self.spec.aligned,
            self.norm,
            self.norm_eps,
            self.dtype,
            name=f"block{i}",
        )(x, train)

    def _last(self, x, dilation, train):
        """The layers after the last block."""
        aligned = self.spec.aligned
        x = linen.relu(x) if aligned else x
        for i, channels in enumerate(self.spec.last, start=3):
            x = Separable(
                self._scaled(channels),
                1,
                dilation,
                aligned,
                self.norm,
                self.norm_eps,
                self.dtype,
                name=f"conv{i}",
            )(x, train)
            x = linen.relu(self._normed(x, f"bn{i}", train))
            self.sow("intermediates", f"act{i}", x)
        return x

    def _normed(self, x, name, train):
        layer = norm(
            self.norm,
            name=name,
            channels=x.shape[-1],
            train=train,
            epsilon=self.norm_eps,
            dtype=self.dtype,
        )
        return layer(x)

    def _scaled(self, channels):
        return max(channels * self.width // 32, 1)


def xception(name: str, /, **kwargs: Any) -> Xception:
    """The member called `name` of `SPECS`; keywords as in `Xception`.

    Raises UserError for an unknown name.
    """
    if name not in SPECS:
        raise UserError(f"no Xception is called {name!r}; choose one of {[*SPECS]}")
    return Xception(spec=SPECS[name], **kwargs)
