"""RetinaNet: dense priors, learnt by focal loss (Lin et al., ICCV 2017).

    b images, p priors over all levels, c classes
    logits   [p c], a sigmoid each: there is no background class

The recipe and the names of parameters are torchvision's; its second, with norms in the
heads and a GIoU loss, is among `ORIGINALS`.
"""

from detjax.models.retinanet.detect import Detect
from detjax.models.retinanet.match import Loss, Match
from detjax.models.retinanet.model import ORIGINALS, retinanet
from detjax.models.retinanet.net import Head, Priors

__all__ = ["ORIGINALS", "Detect", "Head", "Loss", "Match", "Priors", "retinanet"]
