"""SSD: classes and boxes from maps of several strides (Liu et al., ECCV 2016).

    b images, p priors over all levels, c classes
    logits   [p c+1], the background last

The recipe of 300 pixels, and the names of parameters, are torchvision's.
"""

from detjax.models.ssd.detect import Detect
from detjax.models.ssd.match import Match
from detjax.models.ssd.model import ORIGINALS, ssd, ssd300, ssd512
from detjax.models.ssd.net import Backbone, Extras
from detjax.models.ssd.priors import Priors

__all__ = [
    "ORIGINALS",
    "Backbone",
    "Detect",
    "Extras",
    "Match",
    "Priors",
    "ssd",
    "ssd300",
    "ssd512",
]
