"""SegNet and SegNet-basic (Badrinarayanan et al., TPAMI 2017).

    b        images
    c        classes
    logits   [b h w c]

A decoder that mirrors its encoder enlarges maps by unpooling: each value goes back to
where the maximum of its 2x2 cells was, and convolutions fill what lies between.
"""

import functools
from typing import Any

import jax.numpy as jnp
from flax import linen

from detjax.backbones.vgg import Encoder, Groups
from detjax.models.pixelwise import Loss, segmenter
from detjax.nn.conv import Conv
from detjax.nn.images import Pixels, normalize
from detjax.nn.norm import Norm, norm
from detjax.nn.upsample import Switches
from detjax.settings import Count, Dtype, Positive
from detjax.types import Model


class Net(linen.Module):
    """Images [b h w 3] -> (logits [b h w c],), float32."""

    num_classes: int
    backbone: Groups
    pixels: str
    dtype: Any

    @linen.compact
    def __call__(self, images, train: bool = False):
        switches, body = Switches(), self.backbone
        pool = functools.partial(_pooled, self, switches)
        x = normalize(images, self.pixels, self.dtype)
        x = pool(self.backbone(x, pool, train)[-1])
        for i, depth in reversed([*enumerate(body.groups, start=1)]):
            x = switches.unpool(x)
            for j in range(depth, 0, -1):
                # A group's last convolution has the channels of the group before.
                before = i - 2 if j == 1 else i - 1
                channels = body.width * min(2**before, 8)
                if (i, j) == (1, 1):
                    channels = self.num_classes
                name = f"conv{i}_{j}_D"
                kinds: Any = {"bias": True, "dtype": self.dtype}
                x = Conv(int(channels), 3, name=name, **kinds)(x)
                if (i, j) != (1, 1):
                    x = linen.relu(_normalised(body, f"{name}_bn", x, train))
        return (x.astype(jnp.float32),)


class BasicNet(linen.Module):
    """Images [b h w 3] -> (logits [b h w c],), float32."""

    num_classes: int
    width: int
    depth: int
    kernel: int
    norm: str
    norm_eps: float
    pixels: str
    dtype: Any

    @linen.compact
    def __call__(self, images, train: bool = False):
        switches = Switches()
        x = contrast_normalised(normalize(images, self.pixels, self.dtype))
        kinds: Any = {"bias": True, "dtype": self.dtype}
        for i in range(1, self.depth + 1):
            x = Conv(self.width, self.kernel, name=f"conv{i}", **kinds)(x)
            x = linen.relu(_normalised(self, f"conv{i}_bn", x, train))
            x = _pooled(self, switches, x)
        for i in range(self.depth, 0, -1):
            x = switches.unpool(x)
            x = Conv(self.width, self.kernel, name=f"conv_decode{i}", **kinds)(x)
            x = _normalised(self, f"conv_decode{i}_bn", x, train)
        x = Conv(self.num_classes, 1, name="conv_classifier", **kinds)(x)
        return (x.astype(jnp.float32),)


def _pooled(net, switches, x):
    """Maxima of `x`, kept for inspection as the original calls them."""
    x = switches.pool(x)
    net.sow("intermediates", f"pool{len(switches)}", x)
    return x


def _normalised(kinds, name, x, train):
    """`x` behind the norm that `kinds` has the settings of."""
    return norm(
        kinds.norm,
        name=name,
        channels=x.shape[-1],
        train=train,
        epsilon=kinds.norm_eps,
        dtype=kinds.dtype,
    )(x)


def contrast_normalised(x, size: int = 5, alpha: float = 1e-4, beta: float = 0.75):
    """x / (1 + alpha * mean of x^2 over `size` channels)^beta, [... c].

    Local response normalisation as Caffe has it (Krizhevsky et al. 2012, section 3.3).
    """
    squares, half = jnp.square(x.astype(jnp.float32)), size // 2
    around = [(0, 0)] * (x.ndim - 1) + [(half, half)]
    squares = jnp.pad(squares, around)
    count = x.shape[-1]
    total = sum(squares[..., i : i + count] for i in range(size))
    return (x / (1 + alpha / size * total) ** beta).astype(x.dtype)


def segnet(
    *,
    num_classes: Count,
    backbone: Encoder = Encoder("vgg16_bn"),
    norm_eps: Positive = 1e-5,
    loss: Loss = Loss(),
    pixels: Pixels = "imagenet",
    dtype: Dtype = "float32",
) -> Model:
    """SegNet: a VGG's convolutions, and their mirror image.

    num_classes: the classes that are told apart; if not set those of the data set.
    backbone: of any width; the decoder has the same, and the same norm.
    norm_eps: added to the variance in norms; the authors' Caffe has 1e-9.
    loss: of the logits; mean_over="pixels" with median frequencies as weights of the
        classes is the original's.
    pixels: how images are normalised; see `nn.images.normalize`.
    dtype: of activations; parameters and losses are float32.

    The groups of its parameters are "backbone" and "decoder". Any size of images is
    taken. `train.init_from` takes torchvision's convolutions, of "vgg16_bn" with norms,
    of "vgg16" without; the decoder has norms in any case.
    """
    kind = jnp.dtype(dtype)
    body = backbone.module(kind, norm_eps=norm_eps)
    net = Net(num_classes, body, pixels, kind)
    groups = {"backbone": r"^backbone\.", "decoder": r"^conv"}
    return segmenter(net, num_classes, loss, groups=groups)


def segnet_basic(
    *,
    num_classes: Count,
    width: Count = 64,
    depth: Count = 4,
    kernel: Count = 7,
    norm: Norm = "batch",
    norm_eps: Positive = 1e-5,
    loss: Loss = Loss(),
    pixels: Pixels = "imagenet",
    dtype: Dtype = "float32",
) -> Model:
    """SegNet-basic: four convolutions down, four up, no ReLU on the way up.

    num_classes: the classes that are told apart; if not set those of the data set.
    width: channels of all maps.
    depth: convolutions down, and up; each halves the map.
    kernel: their side, odd.
    norm: of all layers but the last.
    norm_eps: added to the variance in norms; the authors' Caffe has 1e-9.
    loss: of the logits; see `segnet`.
    pixels: how images are normalised; see `nn.images.normalize`.
    dtype: of activations; parameters and losses are float32.

    The groups of its parameters are "backbone" and "decoder". Any size of images is
    taken.
    """
    kind = jnp.dtype(dtype)
    net = BasicNet(num_classes, width, depth, kernel, norm, norm_eps, pixels, kind)
    groups = {"backbone": r"^conv\d", "decoder": r"^conv_"}
    return segmenter(net, num_classes, loss, groups=groups)
