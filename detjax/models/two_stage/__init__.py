"""Two-stage detectors: Fast, Faster, Mask, Keypoint and Mask Scoring R-CNN.

Boxes are proposed by a network or by the data; the features in each are classified and
its box refined, which gives masks, keypoints, and a prediction of the mask's IoU.
`detector` wires the stages, one file each.

Girshick 2015; Ren et al. 2015; Lin et al. 2017 (FPN); He et al. 2017; Huang et al.
2019. The recipes, and the names of parameters, are torchvision's.
"""

from detjax.backbones.pyramid import FPN, Backbone
from detjax.models.two_stage.box import Box
from detjax.models.two_stage.detect import Detect
from detjax.models.two_stage.detector import two_stage
from detjax.models.two_stage.keypoint import Keypoint
from detjax.models.two_stage.mask import Mask
from detjax.models.two_stage.mask_iou import MaskIoU
from detjax.models.two_stage.originals import (
    EARLIER,
    ORIGINALS,
    fast_rcnn,
    faster_rcnn,
    faster_rcnn_c4,
    faster_rcnn_vgg16,
    keypoint_rcnn,
    mask_rcnn,
    ms_rcnn,
)
from detjax.models.two_stage.roi import RoI
from detjax.models.two_stage.rpn import RPN

__all__ = [
    "EARLIER",
    "FPN",
    "ORIGINALS",
    "RPN",
    "Backbone",
    "Box",
    "Detect",
    "Keypoint",
    "Mask",
    "MaskIoU",
    "RoI",
    "fast_rcnn",
    "faster_rcnn",
    "faster_rcnn_c4",
    "faster_rcnn_vgg16",
    "keypoint_rcnn",
    "mask_rcnn",
    "ms_rcnn",
    "two_stage",
]
