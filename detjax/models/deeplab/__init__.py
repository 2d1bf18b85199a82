"""DeepLabV3 and DeepLabV3+: dilated backbones and pooling at several rates.

b images, c classes, oh ow the map that logits are made on
logits   [b oh ow c]: of the backbone's output stride, and of stride 4 in V3+
"""

from detjax.models.deeplab.aspp import Pooling
from detjax.models.deeplab.originals import PLUS, V3
from detjax.models.deeplab.plus import Decoder, deeplabv3plus
from detjax.models.deeplab.v3 import deeplabv3

__all__ = ["PLUS", "V3", "Decoder", "Pooling", "deeplabv3", "deeplabv3plus"]
