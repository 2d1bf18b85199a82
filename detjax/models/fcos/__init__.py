"""FCOS: a box from every place, without priors (Tian et al., ICCV 2019).

    b images, p places over all levels, c classes
    reach    [p 4], the distances from a place to the sides of its box: left, top,
             right, bottom, in strides of its level

With centre sampling, centerness on the branch of boxes and a GIoU loss, as in the
paper's second version (2020). The recipe and the names of parameters are torchvision's.
"""

from detjax.models.fcos.detect import Detect
from detjax.models.fcos.match import Loss, Match
from detjax.models.fcos.model import ORIGINALS, fcos
from detjax.models.fcos.net import Head

__all__ = ["ORIGINALS", "Detect", "Head", "Loss", "Match", "fcos"]
