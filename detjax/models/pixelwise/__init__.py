"""Networks that answer for every pixel, as models: what their families share."""

from detjax.models.pixelwise.auxiliary import Auxiliary
from detjax.models.pixelwise.backbone import Backbone
from detjax.models.pixelwise.labels import Loss, compared, of_labels, segmenter
from detjax.models.pixelwise.maps import enlarged, without_padding
from detjax.models.pixelwise.values import ValueLoss, check_one, differed, regressor

__all__ = [
    "Auxiliary",
    "Backbone",
    "Loss",
    "ValueLoss",
    "check_one",
    "compared",
    "differed",
    "enlarged",
    "of_labels",
    "regressor",
    "segmenter",
    "without_padding",
]
