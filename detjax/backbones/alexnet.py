"""AlexNet (Krizhevsky et al., NeurIPS 2012) in torchvision's one-tower form.

Krizhevsky 2014 (One weird trick) has its widths. With the fully connected layers it is
for one input size: the first of them sees all positions, so weights fit the size that
they were made at, 224 (to 239) for torchvision's.

    images   [b h w 3]
    c2..c5   64, 192, 256 and again 256 channels: the first, second and last convolution
             and pool5, which are padded; classifiers are not, as published
    fc7      [b 1 1 4096]: a map of one pixel
"""

from typing import Any

import jax.numpy as jnp
from flax import linen

from detjax.nn.conv import Conv

# Index in torchvision's `features`, width, kernel, stride, padding, pooled after.
_LAYERS = (
    (0, 64, 11, 4, 2, True),
    (3, 192, 5, 1, 2, True),
    (6, 384, 3, 1, 1, False),
    (8, 256, 3, 1, 1, False),
    (10, 256, 3, 1, 1, True),
)


class AlexNet(linen.Module):
    """Features (c2, c3, c4, c5), or class logits [b num_classes] where that is set.

    `connected`, the features are (pool5, fc7): what R-CNN reads.
    In training half of what enters fc6 and fc7 is dropped, with the "dropout" key.
    `width` scales all layers; 64 is the original. With `remat` the backward pass
    computes the convolutions again instead of keeping what they found.
    """

    head = r"classifier\.6\."

    width: int = 64
    stages: int = 4
    connected: bool = False
    num_classes: int | None = None
    dropout: float = 0.5
    remat: bool = False
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, images, train: bool = False):
        convolved = AlexNet._convolved
        if self.remat:
            convolved = linen.remat(convolved, static_argnums=(2, 3))
        classifies = self.connected or self.num_classes is not None
        # What keeps every fourth row, every second one of these, and so on.
        around = (2, 0) if classifies else (5, 1)
        features = convolved(self, images.astype(self.dtype), *around)
        x = features[-1]
        if not classifies:
            return features
        pool5 = x
        # torch flattens channels first.
        x = jnp.moveaxis(x, -1, 1).reshape(x.shape[0], -1)
        for i in (1, 4):
            x = linen.Dropout(self.dropout, deterministic=not train)(x)
            dense = linen.Dense(
                64 * self.width, dtype=self.dtype, name=f"classifier.{i}"
            )
            x = linen.relu(dense(x))
        if self.num_classes is None:
            return pool5, x[:, None, None]
        return linen.Dense(self.num_classes, name="classifier.6")(x.astype(jnp.float32))

    def _convolved(self, x, first: int, around: int):
        """The features c2..c5, or as many as there are stages.

        `first` and `around` pad the first convolution, and each pool.
        """
        features = []
        for i, channels, kernel, stride, padding, pooled in _LAYERS:
            x = Conv(
                channels * self.width // 64,
                kernel,
                stride,
                padding if i else first,
                bias=True,
                kernel_init=linen.initializers.lecun_normal(),
                dtype=self.dtype,
                name=f"features.{i}",
            )(x)
            x = linen.relu(x)
            if pooled:
                features.append(x)
                if len(features) == self.stages:
                    return tuple(features)
                x = linen.max_pool(x, (3, 3), (2, 2), [(around, around)] * 2)
        return (*features, x)


def alexnet(name: str, /, *, norm: str = "frozen", **kwargs: Any) -> AlexNet:
    """AlexNet; keywords as in `AlexNet`, and `norm`, which it has no use for."""
    return AlexNet(**kwargs)
