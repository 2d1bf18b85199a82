"""CornerNet: objects as pairs of corners, without priors (Law and Deng, ECCV 2018).

    b images, c classes, n objects, mh mw a map of the input's size over its stride
    heat     [b mh mw c], logits of a corner of each class
    tag      [b mh mw], alike for the two corners of an object, unlike for others
    offset   [b mh mw 2], from a cell to the corner in it: x, y in cells

Hourglasses, and after each of them maps of upper left and of lower right corners, which
corner pooling leads to. Corners that have one class and nearly the same tag are an
object. CornerNet-Squeeze (Law et al., BMVC 2020) is the same on fire modules.

The names of parameters are those of princeton-vl/CornerNet.
"""

from detjax.models.cornernet.detect import Detect
from detjax.models.cornernet.loss import Loss
from detjax.models.cornernet.match import Match
from detjax.models.cornernet.model import ORIGINALS, cornernet
from detjax.models.cornernet.net import Head

__all__ = ["ORIGINALS", "Detect", "Head", "Loss", "Match", "cornernet"]
