"""AlexNet (Krizhevsky et al., NeurIPS 2012) in torchvision's one-tower form.

Krizhevsky 2014 (One weird trick) has its widths. For one input size: the classifier's
first layer sees all positions, so weights fit the size that they were made at.

    images   [b s s 3], s = 224 (to 239) for torchvision's weights
    pool5    [b 6 6 256]
    fc7      [b 1 1 4096]: a map of one pixel
"""

from typing import Any

import jax.numpy as jnp
from flax import linen

# Index in torchvision's `features`, width, kernel, stride, padding, pooled after.
_LAYERS = (
    (0, 64, 11, 4, 2, True),
    (3, 192, 5, 1, 2, True),
    (6, 384, 3, 1, 1, False),
    (8, 256, 3, 1, 1, False),
    (10, 256, 3, 1, 1, True),
)


class AlexNet(linen.Module):
    """Features (pool5, fc7), or class logits [b num_classes] where that is set.

    In training half of what enters fc6 and fc7 is dropped, with the "dropout" key.
    `width` scales all layers; 64 is the original. With `remat` the backward pass
    computes the convolutions again instead of keeping what they found.
    """

    width: int = 64
    num_classes: int | None = None
    dropout: float = 0.5
    remat: bool = False
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, images, train: bool = False):
        x = images.astype(self.dtype)
        convolved = AlexNet._convolved
        x = (linen.remat(convolved) if self.remat else convolved)(self, x)
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

    def _convolved(self, x):
        for i, channels, kernel, stride, padding, pooled in _LAYERS:
            x = linen.Conv(
                channels * self.width // 64,
                (kernel, kernel),
                strides=stride,
                padding=padding,
                dtype=self.dtype,
                name=f"features.{i}",
            )(x)
            x = linen.relu(x)
            if pooled:
                x = linen.max_pool(x, (3, 3), (2, 2))
        return x


def alexnet(name: str, /, *, norm: str = "frozen", **kwargs: Any) -> AlexNet:
    """AlexNet; keywords as in `AlexNet`, and `norm`, which it has no use for."""
    return AlexNet(**kwargs)
