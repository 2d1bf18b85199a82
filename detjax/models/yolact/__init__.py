"""YOLACT: prototypes, mask coefficients, Fast NMS (Bolya et al., ICCV 2019).

    b images, p priors over all levels, c classes, q prototypes, n objects
    mh, mw   the prototypes' grid, twice the finest level's
    logits   [p c+1], the background last

A mask is the sigmoid of a linear combination of prototypes, cut out by its box. Without
masks (`mask=None`) what is left is a single-shot detector with shared heads.
"""

from detjax.models.yolact.detect import Detect
from detjax.models.yolact.mask import Mask
from detjax.models.yolact.match import Match
from detjax.models.yolact.model import yolact
from detjax.models.yolact.net import Backbone, Priors, Pyramid
from detjax.models.yolact.originals import EARLIER, ORIGINALS
from detjax.models.yolact.rescore import Rescore

__all__ = [
    "EARLIER",
    "ORIGINALS",
    "Backbone",
    "Detect",
    "Mask",
    "Match",
    "Priors",
    "Pyramid",
    "Rescore",
    "yolact",
]
