"""Feature pyramid (Lin et al., CVPR 2017), with torchvision's parameter names."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen

from detjax.nn.norm import norm
from detjax.ops import resize

xavier = jax.nn.initializers.xavier_uniform()


class FPN(linen.Module):
    """Pyramid levels, finest first, from backbone features, finest first.

    Features [b h w c] -> levels [b h w features], one a feature, then `extra_levels`
    more, each by a stride-2 convolution of the level before.
    """

    features: int = 256
    extra_levels: int = 0
    # What the first of these sees: the last "level", or the last backbone "feature".
    extra_from: str = "level"
    extra_relu: bool = False  # before each of these but the first
    upsample: str = "nearest"  # or "bilinear"
    relu: bool = False  # after each level's 3x3 convolution
    norm: str | None = None  # after each convolution of a feature, in a bias's place
    norm_eps: float = 1e-5
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, features, train: bool = False):
        def conv(name, kernel, stride=1, bias=True):
            return linen.Conv(
                self.features,
                (kernel, kernel),
                strides=stride,
                padding=kernel // 2,
                use_bias=bias,
                kernel_init=xavier,
                dtype=self.dtype,
                name=name,
            )

        def block(name, kernel, x):
            x = conv(f"{name}.0", kernel, bias=self.norm is None)(x)
            if self.norm is None:
                return x
            return norm(
                self.norm,
                name=f"{name}.1",
                channels=self.features,
                train=train,
                epsilon=self.norm_eps,
                dtype=self.dtype,
            )(x)

        scale_to = jax.vmap(getattr(resize, self.upsample), in_axes=(0, None))
        levels: list[jax.Array] = []
        top = None
        for i, feature in reversed(list(enumerate(features))):
            lateral = block(f"inner_blocks.{i}", 1, feature)
            if top is not None:
                lateral = lateral + scale_to(top, lateral.shape[1:3])
            top = lateral
            level = block(f"layer_blocks.{i}", 3, top)
            levels.insert(0, linen.relu(level) if self.relu else level)
        x = levels[-1] if self.extra_from == "level" else features[-1]
        for i in range(self.extra_levels):
            x = linen.relu(x) if i and self.extra_relu else x
            x = conv(f"extra_blocks.p{i + 6}", 3, 2)(x)
            levels.append(x)
        return tuple(levels)
