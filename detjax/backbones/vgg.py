"""VGG (Simonyan and Zisserman, ICLR 2015), with torchvision's state-dict names.

images   [b h w 3]
c2..c5   [b h/4 w/4 256] .. [b h/32 w/32 512]: what the third, fourth and fifth group
         of convolutions leave, and the last one pooled
"""

import dataclasses
from typing import Annotated, Any

import jax.numpy as jnp
from flax import linen

from detjax.errors import UserError
from detjax.nn.conv import Conv
from detjax.nn.norm import Norm, norm
from detjax.nn.observe import site
from detjax.nn.pool import binned
from detjax.nn.strides import dilated
from detjax.settings import Count, OneOf

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
                depth, channels, dilation = kind
                for j in range(depth):
                    at = start + j * layers(net.normed)
                    x = convolved(net, x, at, channels, train, dilation=dilation)
                return x

            x = (linen.remat(group) if self.remat else group)(self, x)
            layer += depth * layers(self.normed)
            left.append(x)
            stride, dilation = plan[i]
            if stride == 2:
                x = linen.max_pool(x, (2, 2), (2, 2))
            else:
                x = linen.max_pool(x, (3, 3), (1, 1), [(1, 1), (1, 1)])
                dilation *= 2
            x = site(".".join((*self.path, f"features.{layer}")), x)
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


def layers(normed: bool) -> int:
    """Layers of torchvision's list from one convolution to the next."""
    return 3 if normed else 2


def convolved(net, x, layer, channels, train, *, dilation=1, padding=None):
    """A 3x3 convolution, with its norm if any, and ReLU: torchvision's `layer`.

    To be called inside the compact method of `net`, which has the settings of `VGG`.
    """
    x = Conv(
        channels,
        3,
        dilation=dilation,
        padding=padding,
        bias=True,
        dtype=net.dtype,
        name=f"features.{layer}",
    )(x)
    if net.normed:
        x = norm(
            net.norm,
            name=f"features.{layer + 1}",
            channels=channels,
            train=train,
            epsilon=net.norm_eps,
            dtype=net.dtype,
        )(x)
    last = layer + layers(net.normed) - 1
    return site(".".join((*net.path, f"features.{last}")), linen.relu(x))


def vgg(name: str, /, **kwargs: Any) -> VGG:
    """The member called `name` of `NAMES`; keywords as in `VGG`.

    Raises UserError for an unknown name.
    """
    if name not in NAMES:
        raise UserError(f"no VGG is called {name!r}; choose one of {NAMES}")
    plain = name.removesuffix("_bn")
    return VGG(groups=SPECS[plain], normed=plain != name, **kwargs)


class Groups(linen.Module):
    """The five groups of convolutions, with any pooling between them.

    They leave maps at strides 1, 2, 4, 8 and 16, the finest first.

    `padding` is the first convolution's; other fields as in `VGG`.
    """

    groups: tuple[int, ...]
    normed: bool = False
    width: int = 64
    norm: str = "batch"
    norm_eps: float = 1e-5
    padding: int = 1
    remat: bool = False
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, x, pool, train: bool = False):
        """Maps of images [b h w 3], with `pool` (x) -> x before all groups but one."""
        layer, left = 0, []
        for i, depth in enumerate(self.groups):
            x = pool(x) if i else x

            def group(net, x, start=layer, kind=(i, depth)):
                i, depth = kind
                for j in range(depth):
                    at = start + j * layers(net.normed)
                    around = None if at else net.padding
                    channels = net.width * min(2**i, 8)
                    x = convolved(net, x, at, channels, train, padding=around)
                return x

            x = (linen.remat(group) if self.remat else group)(self, x)
            left.append(x)
            layer += depth * layers(self.normed) + 1
        return tuple(left)


@dataclasses.dataclass(frozen=True)
class Encoder:
    """The VGG called `name`, without its classifier.

    name: of the network; those that end in "_bn" have norms.
    width: channels of its first group.
    norm: of all its layers, where it has some.
    remat: trains in less memory and more time: the insides of groups are computed again
        for the gradient.
    """

    name: Annotated[str, OneOf(tuple(NAMES))] = "vgg16"
    width: Count = 64
    norm: Norm = "batch"
    remat: bool = False

    @property
    def depths(self) -> tuple[int, ...]:
        """Convolutions in each group."""
        return SPECS[self.name.removesuffix("_bn")]

    def module(self, dtype: Any, **kinds: Any) -> Groups:
        """Normalised images -> maps; `kinds` are other fields of `Groups`."""
        return Groups(
            self.depths,
            self.name.endswith("_bn"),
            self.width,
            self.norm,
            remat=self.remat,
            dtype=dtype,
            **kinds,
        )
