"""VGG (Simonyan and Zisserman, ICLR 2015), with torchvision's state-dict names.

images   [b h w 3]
c2..c5   [b h/4 w/4 256] .. [b h/32 w/32 512]: what the third, fourth and fifth group
         of convolutions leave, and the last one pooled
"""

from typing import Any

import jax.numpy as jnp
from flax import linen

from detjax.errors import UserError
from detjax.nn.conv import Conv
from detjax.nn.norm import norm
from detjax.nn.pool import binned
from detjax.nn.strides import dilated

CLASSIFIER_SIDE = 7

# Convolutions in each of the five groups, all of 3x3.
SPECS = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
NAMES = [*SPECS, *(f"{name}_bn" for name in SPECS)]


class VGG(linen.Module):
    """Features (c2, c3, c4, c5), or class logits [b num_classes] where that is set.

    Fewer than four `stages` give fewer features. With an `output_stride` of 16 or 8 the
    last pools keep the size, 3x3 at stride 1, and the convolutions after them are
    dilated, as in DeepLab (Chen et al. 2015, section 3.1). `norm` is for the variants
    that have one after each convolution; the others have none. With `remat` the
    backward pass computes what is inside each group of convolutions again.
    """

    head = r"classifier\.6\."

    groups: tuple[int, ...]
    normed: bool = False
    width: int = 64
    stages: int = 4
    norm: str = "batch"
    norm_eps: float = 1e-5
    num_classes: int | None = None
    dropout: float = 0.5  # after both hidden layers of the classifier, in training
    output_stride: int = 32
    remat: bool = False
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, images, train: bool = False):
        x, layer, left, dilation = images, 0, [], 1
        plan = dilated([2] * len(self.groups), self.output_stride)
        for i, depth in enumerate(self.groups[: self.stages + 2]):
            channels = self.width * min(2**i, 8)

            def group(net, x, start=layer, kind=(depth, channels, dilation)):
                depth, *sizes = kind
                for j in range(depth):
                    x = net._conv(x, start + j * net._step, *sizes, train)
                return x

            x = (linen.remat(group) if self.remat else group)(self, x)
            layer += depth * self._step
            left.append(x)
            stride, dilation = plan[i]
            if stride == 2:
                x = linen.max_pool(x, (2, 2), (2, 2))
            else:
                x = linen.max_pool(x, (3, 3), (1, 1), [(1, 1), (1, 1)])
                dilation *= 2
            layer += 1
        if self.num_classes is None:
            # The first two groups are strides 1 and 2, which no detector reads.
            return tuple([*left[2:], x][: self.stages])
        x = binned(x, CLASSIFIER_SIDE).reshape(x.shape[0], -1)
        for name in ("classifier.0", "classifier.3"):
            x = linen.Dense(4096, dtype=self.dtype, name=name)(x)
            x = linen.relu(x)
            x = linen.Dropout(self.dropout, deterministic=not train)(x)
        return linen.Dense(self.num_classes, name="classifier.6")(x)

    @property
    def _step(self) -> int:
        """Layers of torchvision's list from one convolution to the next."""
        return 3 if self.normed else 2

    def _conv(self, x, layer, channels, dilation, train):
        x = Conv(
            channels,
            3,
            dilation=dilation,
            bias=True,
            dtype=self.dtype,
            name=f"features.{layer}",
        )(x)
        if self.normed:
            x = norm(
                self.norm,
                name=f"features.{layer + 1}",
                channels=channels,
                train=train,
                epsilon=self.norm_eps,
                dtype=self.dtype,
            )(x)
        return linen.relu(x)


def vgg(name: str, /, **kwargs: Any) -> VGG:
    """The member called `name` of `NAMES`; keywords as in `VGG`.

    Raises UserError for an unknown name.
    """
    if name not in NAMES:
        raise UserError(f"no VGG is called {name!r}; choose one of {NAMES}")
    plain = name.removesuffix("_bn")
    return VGG(groups=SPECS[plain], normed=plain != name, **kwargs)
