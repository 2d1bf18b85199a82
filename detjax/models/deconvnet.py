"""DeconvNet (Noh et al., ICCV 2015): VGG-16 up to its fully connected layers, mirrored.

    b        images
    c        classes
    logits   [b h w c]

Unlike SegNet it keeps fc6, 7x7 cells of 32 pixels, so that every cell sees most of the
picture; all on the way back is transposed convolution and unpooling.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen

from detjax.backbones.vgg import Encoder, Groups
from detjax.errors import UserError
from detjax.models.pixelwise import Loss, segmenter
from detjax.nn.conv import Conv
from detjax.nn.images import Pixels, normalize
from detjax.nn.norm import norm
from detjax.nn.upsample import ConvTranspose, Switches
from detjax.settings import Count, Dtype
from detjax.types import Model


class Net(linen.Module):
    """Images [b h w 3] -> (logits [b h w c],), float32."""

    num_classes: int
    backbone: Groups
    hidden: int
    side: int
    pixels: str
    dtype: Any

    @linen.compact
    def __call__(self, images, train: bool = False):
        switches, body = Switches(), self.backbone

        def normed(name, x):
            kinds: Any = {"epsilon": body.norm_eps, "dtype": self.dtype, "train": train}
            layer = norm(body.norm, name=name, channels=x.shape[-1], **kinds)
            return linen.relu(layer(x))

        def up(name, channels, side, padding, x):
            kinds: Any = {"padding": padding, "dtype": self.dtype, "name": name}
            return ConvTranspose(channels, side, 1, **kinds)(x)

        x = normalize(images, self.pixels, self.dtype)
        x = switches.pool(self.backbone(x, switches.pool, train)[-1])
        if min(x.shape[1:3]) < self.side:
            raise UserError(
                f"pool5 is {x.shape[1]} x {x.shape[2]} cells, and fc6 takes {self.side}"
                f" x {self.side}; give larger images, or a smaller model.fc6_side"
            )
        kinds: Any = {"padding": 0, "bias": True, "dtype": self.dtype}
        x = normed("bnfc6", Conv(self.hidden, self.side, name="fc6", **kinds)(x))
        x = normed("bnfc7", Conv(self.hidden, 1, name="fc7", **kinds)(x))
        widths = [body.width * min(2**i, 8) for i in range(len(body.groups))]
        x = up("fc6-deconv", widths[-1], self.side, 0, x)
        x = normed("fc6-deconv-bn", x)
        for i in reversed(range(len(widths))):
            x = switches.unpool(x)
            for j in range(1, body.groups[i] + 1):
                last = j == body.groups[i]
                channels = widths[max(i - 1, 0)] if last else widths[i]
                x = up(f"deconv{i + 1}_{j}", channels, 3, 1, x)
                x = normed(f"debn{i + 1}_{j}", x)
        x = Conv(self.num_classes, 1, name="seg-score", **kinds)(x)
        return (x.astype(jnp.float32),)


def deconvnet(
    *,
    num_classes: Count,
    backbone: Encoder = Encoder("vgg16_bn"),
    hidden: Count = 4096,
    fc6_side: Count = 7,
    loss: Loss = Loss(),
    pixels: Pixels = "imagenet",
    dtype: Dtype = "float32",
) -> Model:
    """DeconvNet.

    num_classes: the classes that are told apart; if not set those of the data set.
    backbone: of any width; the decoder has the same, and the same norm.
    hidden: channels of fc6 and fc7.
    fc6_side: of fc6's kernel, in cells of 32 pixels; no image may have fewer on a side.
        The original's images are 224 x 224, of which 7 leaves one cell.
    loss: of the logits.
    pixels: how images are normalised; see `nn.images.normalize`.
    dtype: of activations; parameters and losses are float32.

    The groups of its parameters are "backbone", "fc" and "decoder". `train.init_from`
    takes the convolutions of torchvision's VGG, and fc6 and fc7 from its classifier.
    The paper classifies 50 proposals of objects in each picture and takes the maximum
    of their scores; here the network labels the picture as a whole.
    """
    kind = jnp.dtype(dtype)
    body = backbone.module(kind)
    net = Net(num_classes, body, hidden, fc6_side, pixels, kind)
    groups = {
        "backbone": r"^backbone\.",
        "fc": r"^(bn)?fc[67]\.",
        "decoder": r"^(fc6-deconv|deconv|debn|seg-score)",
    }
    return segmenter(net, num_classes, loss, groups=groups)
