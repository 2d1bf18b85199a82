"""GoogLeNet, or Inception v1 (Szegedy et al., CVPR 2015), with torchvision's names.

torchvision's form: batch norm after each convolution, and a 3x3 convolution where the
paper has 5x5.

    images   [b h w 3]
    c2..c5   [b h/4 w/4 192], [b h/8 w/8 480], [b h/16 w/16 832], [b h/32 w/32 1024]
"""

from typing import Any

import jax.numpy as jnp
from flax import linen

from detjax.errors import UserError
from detjax.nn import pool
from detjax.nn.conv_norm import ConvNorm
from detjax.nn.remat import rematerialised

# Table 1: the blocks between two poolings, with their channels: 1x1; 3x3, reduced
# before; 5x5, reduced before; after the pooling.
BLOCKS = (
    {
        "inception3a": (64, 96, 128, 16, 32, 32),
        "inception3b": (128, 128, 192, 32, 96, 64),
    },
    {
        "inception4a": (192, 96, 208, 16, 48, 64),
        "inception4b": (160, 112, 224, 24, 64, 64),
        "inception4c": (128, 128, 256, 24, 64, 64),
        "inception4d": (112, 144, 288, 32, 64, 64),
        "inception4e": (256, 160, 320, 32, 128, 128),
    },
    {
        "inception5a": (256, 160, 320, 32, 128, 128),
        "inception5b": (384, 192, 384, 48, 128, 128),
    },
)
# Where an auxiliary classifier looks.
AUXILIARY = {"inception4a": "aux1", "inception4d": "aux2"}
NAMES = ("googlenet",)


class Inception(linen.Module):
    """Four branches side by side, figure 2b."""

    channels: tuple[int, ...]
    norm: str
    norm_eps: float
    dtype: Any

    @linen.compact
    def __call__(self, x, train: bool):
        def unit(i, kernel, name, x):
            kinds: Any = {"norm": self.norm, "norm_eps": self.norm_eps}
            layer = ConvNorm(
                self.channels[i], kernel, **kinds, dtype=self.dtype, name=name
            )
            return layer(x, train)

        return jnp.concatenate(
            [
                unit(0, 1, "branch1", x),
                unit(2, 3, "branch2.1", unit(1, 1, "branch2.0", x)),
                unit(4, 3, "branch3.1", unit(3, 1, "branch3.0", x)),
                unit(5, 1, "branch4.1", linen.max_pool(x, (3, 3), padding="SAME")),
            ],
            axis=-1,
        )


class Auxiliary(linen.Module):
    """Logits [b num_classes] from a map inside, section 5."""

    num_classes: int
    width: int
    dropout: float
    norm: str
    norm_eps: float
    dtype: Any

    @linen.compact
    def __call__(self, x, train: bool):
        unit = ConvNorm(
            2 * self.width,
            1,
            norm=self.norm,
            norm_eps=self.norm_eps,
            dtype=self.dtype,
            name="conv",
        )
        x = unit(pool.binned(x, 4), train)
        # torch flattens channels first.
        x = jnp.moveaxis(x, -1, 1).reshape(x.shape[0], -1)
        x = linen.Dense(16 * self.width, dtype=self.dtype, name="fc1")(x)
        x = linen.Dropout(self.dropout, deterministic=not train)(linen.relu(x))
        return linen.Dense(self.num_classes, name="fc2")(x.astype(jnp.float32))


class GoogLeNet(linen.Module):
    """Features (c2, c3, c4, c5), or class logits [b num_classes] where that is set.

    Fewer than four `stages` give fewer features. With `auxiliary` there are two more
    classifiers, on inception4a and inception4d, and in training the answer is the
    logits of all three, the last layer's first. `width` scales all layers; 64 is the
    original. With `remat` the backward pass computes what is inside each block again
    instead of keeping it.
    """

    head = r"(fc|aux[12]\.fc2)\."
    auxiliary_head = r"aux[12]\."
    auxiliary_weight = 0.3  # of their losses: section 5

    width: int = 64
    stages: int = 4
    norm: str = "batch"
    norm_eps: float = 1e-3
    num_classes: int | None = None
    dropout: float = 0.2  # before the last layer
    auxiliary: bool = False
    auxiliary_dropout: float = 0.7
    remat: bool = False
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, images, train: bool = False):
        kinds: Any = {
            "norm": self.norm,
            "norm_eps": self.norm_eps,
            "dtype": self.dtype,
        }
        block = rematerialised(Inception, self.remat)
        x = self._stem(images, train, kinds)
        features, more = [x], []
        for blocks in BLOCKS[: self.stages - 1]:
            x = pool.max_pool(x, *((2, 2) if "inception5a" in blocks else (3, 2)))
            for name, channels in blocks.items():
                x = block(self._scaled(*channels), **kinds, name=name)(x, train)
                if self._asked(train) and name in AUXILIARY:
                    aux = Auxiliary(
                        self.num_classes,
                        self.width,
                        self.auxiliary_dropout,
                        **kinds,
                        name=AUXILIARY[name],
                    )
                    more.append(aux(x, train))
            features.append(x)
        if self.num_classes is None:
            return tuple(features)
        x = x.mean(axis=(1, 2)).astype(jnp.float32)
        x = linen.Dropout(self.dropout, deterministic=not train)(x)
        logits = linen.Dense(self.num_classes, name="fc")(x)
        return (logits, *more) if more and train else logits

    def _stem(self, images, train, kinds):
        one, three = self._scaled(64, 192)
        x = ConvNorm(one, 7, 2, **kinds, name="conv1")(images, train)
        x = pool.max_pool(x, 3, 2)
        x = ConvNorm(one, 1, **kinds, name="conv2")(x, train)
        return ConvNorm(three, 3, **kinds, name="conv3")(x, train)

    def _scaled(self, *channels):
        return tuple(max(n * self.width // 64, 1) for n in channels)

    def _asked(self, train):
        """Whether auxiliary classifiers are to be computed, or to be made."""
        wanted = self.auxiliary and self.num_classes is not None
        return wanted and (train or self.is_initializing())


def googlenet(name: str, /, **kwargs: Any) -> GoogLeNet:
    """The member called `name` of `NAMES`; keywords as in `GoogLeNet`.

    Raises UserError for an unknown name.
    """
    if name not in NAMES:
        raise UserError(f"no GoogLeNet is called {name!r}; choose one of {[*NAMES]}")
    return GoogLeNet(**kwargs)
