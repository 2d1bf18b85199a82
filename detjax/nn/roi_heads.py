"""Heads on regions [n s s c]: boxes, masks, keypoints, and how well a mask fits.

Names are torchvision's. Maps are flattened by row, column, channel; torch files, which
have channels first, are reordered when they are read.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen

from detjax.nn.norm import MaskedBatchNorm, norm
from detjax.ops import resize

kaiming = jax.nn.initializers.variance_scaling(2.0, "fan_out", "normal")
dense = jax.nn.initializers.variance_scaling(1.0, "fan_in", "uniform")


def flat(x):
    return x.reshape(x.shape[0], -1)


class TwoMLP(linen.Module):
    """Two fully connected layers, [n s s c] -> [n hidden]; `dropout` after each.

    FPN's head has 1024 units, VGG's 4096 and dropout.
    """

    hidden: int = 1024
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, x, train: bool = False, real=None):
        x = flat(x)
        for name in ("fc6", "fc7"):
            x = linen.Dense(
                self.hidden, kernel_init=dense, dtype=self.dtype, name=name
            )(x)
            x = linen.relu(x)
            if self.dropout:
                x = linen.Dropout(self.dropout, deterministic=not train)(x)
        return x


class Convs(linen.Module):
    """3x3 convolutions, each with a ReLU, [n s s c] -> [n s s features].

    With `hidden`, a fully connected layer of as many units follows, -> [n hidden].
    With a norm, its statistics are those of the `real` regions [n] bool.
    """

    features: int = 256
    depth: int = 4
    hidden: int | None = None
    norm: str | None = None
    norm_eps: float = 1e-5
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, x, train: bool = False, real=None):
        for i in range(self.depth):
            x = linen.Conv(
                self.features,
                (3, 3),
                padding=1,
                use_bias=self.norm is None,
                kernel_init=kaiming,
                dtype=self.dtype,
                name=f"{i}.0",
            )(x)
            if self.norm is not None:
                x = self._normalised(x, f"{i}.1", train, real)
            x = linen.relu(x)
        if self.hidden is None:
            return x
        x = linen.Dense(
            self.hidden,
            kernel_init=dense,
            dtype=self.dtype,
            name=f"{self.depth + 1}",
        )(flat(x))
        return linen.relu(x)

    def _normalised(self, x, name, train, real):
        kinds = {"epsilon": self.norm_eps, "dtype": self.dtype, "name": name}
        if self.norm == "batch" and real is not None:
            return MaskedBatchNorm(**kinds)(x, real, train)
        return norm(self.norm, channels=self.features, train=train, **kinds)(x)


class BoxPredictor(linen.Module):
    """[n d] -> class logits [n c+1] and a box for each class, deltas [n c+1 4]."""

    num_classes: int
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, x):
        def layer(width, scale, name):
            kernel = jax.nn.initializers.normal(scale)
            return linen.Dense(width, kernel_init=kernel, dtype=self.dtype, name=name)

        count = self.num_classes + 1
        logits = layer(count, 0.01, "cls_score")(x)
        deltas = layer(4 * count, 0.001, "bbox_pred")(x)
        return (
            logits.astype(jnp.float32),
            deltas.astype(jnp.float32).reshape(-1, count, 4),
        )


class MaskPredictor(linen.Module):
    """[n s s c] -> logits [n 2s 2s c+1]; the background's are never used."""

    num_classes: int
    features: int = 256
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, x):
        x = linen.ConvTranspose(
            self.features,
            (2, 2),
            strides=(2, 2),
            padding="VALID",
            transpose_kernel=True,
            kernel_init=kaiming,
            dtype=self.dtype,
            name="conv5_mask",
        )(x)
        x = linen.Conv(
            self.num_classes + 1,
            (1, 1),
            kernel_init=kaiming,
            dtype=self.dtype,
            name="mask_fcn_logits",
        )(linen.relu(x))
        return x.astype(jnp.float32)


class KeypointHead(linen.Module):
    """3x3 convolutions, each with a ReLU, [n s s c] -> [n s s features]."""

    features: int = 512
    depth: int = 8
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, x):
        for i in range(self.depth):
            x = linen.Conv(
                self.features,
                (3, 3),
                padding=1,
                kernel_init=kaiming,
                dtype=self.dtype,
                name=f"{2 * i}",
            )(x)
            x = linen.relu(x)
        return x


class KeypointPredictor(linen.Module):
    """[n s s c] -> heatmaps [n 4s 4s keypoints], logits."""

    keypoints: int
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, x):
        x = linen.ConvTranspose(
            self.keypoints,
            (4, 4),
            strides=(2, 2),
            padding=((2, 2), (2, 2)),
            transpose_kernel=True,
            kernel_init=kaiming,
            dtype=self.dtype,
            name="kps_score_lowres",
        )(x).astype(jnp.float32)
        double = (2 * x.shape[1], 2 * x.shape[2])
        return jax.vmap(resize.bilinear, in_axes=(0, None))(x, double)


class MaskIoUHead(linen.Module):
    """Regions [n s s c] and masks [n 2s 2s] in 0..1 -> the masks' IoU [n c] by class.

    Huang et al. 2019 (Mask Scoring R-CNN), section 3.3.
    """

    num_classes: int
    features: int = 256
    hidden: int = 1024
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, x, masks):
        masks = linen.max_pool(masks[..., None], (2, 2), (2, 2)).astype(x.dtype)
        x = jnp.concatenate([x, masks], axis=-1)
        for i in range(4):
            x = linen.Conv(
                self.features,
                (3, 3),
                strides=2 if i == 3 else 1,
                padding=1,
                kernel_init=kaiming,
                dtype=self.dtype,
                name=f"maskiou_fcn{i + 1}",
            )(x)
            x = linen.relu(x)
        x = flat(x)
        for i in (1, 2):
            x = linen.Dense(
                self.hidden,
                kernel_init=dense,
                dtype=self.dtype,
                name=f"maskiou_fc{i}",
            )(x)
            x = linen.relu(x)
        x = linen.Dense(self.num_classes, dtype=self.dtype, name="maskiou")(x)
        return x.astype(jnp.float32)
