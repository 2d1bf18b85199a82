"""The detectors of the papers and of torchvision's weights, as settings of one."""

import functools
from typing import Any

from detjax.backbones.pyramid import FPN, Backbone
from detjax.models.two_stage.box import Box
from detjax.models.two_stage.detect import Detect
from detjax.models.two_stage.detector import two_stage
from detjax.models.two_stage.keypoint import Keypoint
from detjax.models.two_stage.mask import Mask
from detjax.models.two_stage.mask_iou import MaskIoU
from detjax.models.two_stage.roi import RoI
from detjax.models.two_stage.rpn import RPN

faster_rcnn = functools.partial(two_stage)
mask_rcnn = functools.partial(two_stage, mask=Mask())
keypoint_rcnn = functools.partial(two_stage, keypoint=Keypoint())
ms_rcnn = functools.partial(two_stage, mask=Mask(), mask_iou=MaskIoU())
# As in 2015: VGG-16, one level of stride 16, and pooling by maxima; numbers that the
# papers leave open are those of the authors' code.
_VGG: dict[str, Any] = {
    "backbone": Backbone("vgg16", levels=(4,)),
    "fpn": None,
    "box": Box(hidden=4096, dropout=0.5, beta=1.0),
    "detect": Detect(nms_threshold=0.3),
}
fast_rcnn = functools.partial(
    two_stage, **_VGG, rpn=None, roi=RoI(pooling="max", samples=64, background=0.1)
)
faster_rcnn_vgg16 = functools.partial(
    two_stage,
    **_VGG,
    rpn=RPN(
        sizes=((128, 256, 512),),
        inside=True,
        min_size=16,
        pre_nms=(12_000, 6_000),
        post_nms=(2_000, 300),
    ),
    roi=RoI(pooling="max", samples=128),
)
# The last stage of the ResNet is the head (He et al. 2016, section 4.4).
faster_rcnn_c4 = functools.partial(
    two_stage,
    backbone=Backbone(levels=(4,)),
    fpn=None,
    rpn=RPN(sizes=((32, 64, 128, 256, 512),), pre_nms=(12_000, 6_000)),
    box=Box("last_stage", bins=14),
)

# torchvision's numbers of classes, holes in COCO's numbering included. Its first
# weights were trained with a frozen norm that adds nothing to the variance.
_V1: dict[str, Any] = {"num_classes": 90, "backbone": Backbone(norm_eps=0.0)}
_V2: dict[str, Any] = {
    "num_classes": 90,
    "backbone": Backbone(norm="batch"),
    "fpn": FPN(norm="batch"),
    "rpn": RPN(depth=2),
    "box": Box("convs", norm="batch"),
}
ORIGINALS: dict[str, dict[str, Any]] = {
    "faster_rcnn_r50_fpn": _V1,
    "faster_rcnn_r50_fpn_v2": _V2,
    "mask_rcnn_r50_fpn": {**_V1, "mask": Mask()},
    "mask_rcnn_r50_fpn_v2": {**_V2, "mask": Mask(norm="batch")},
    "keypoint_rcnn_r50_fpn": {**_V1, "num_classes": 1, "keypoint": Keypoint()},
}

# Settings of earlier versions, which had no stages, and where they are now; some were
# those of several stages.
EARLIER: dict[str, str | tuple[str, ...]] = {
    "backbone_width": "backbone.width",
    "norm": "backbone.norm",
    "norm_eps": "backbone.norm_eps",
    "levels": "backbone.levels",
    "features": ("fpn.features", "rpn.features"),
    "fpn_norm": "fpn.norm",
    "proposals": "rpn",
    "sizes": "rpn.sizes",
    "ratios": "rpn.ratios",
    "rpn_depth": "rpn.depth",
    "rpn_positive": "rpn.positive",
    "rpn_negative": "rpn.negative",
    "rpn_inside": "rpn.inside",
    "rpn_samples": "rpn.samples",
    "rpn_fraction": "rpn.fraction",
    "rpn_nms_threshold": "rpn.nms_threshold",
    "rpn_min_size": "rpn.min_size",
    "pre_nms": "rpn.pre_nms",
    "post_nms": "rpn.post_nms",
    "pooling": "roi.pooling",
    "sampling": "roi.sampling",
    "aligned": "roi.aligned",
    "canonical_size": "roi.canonical_size",
    "canonical_level": "roi.canonical_level",
    "positive": "roi.positive",
    "negative": "roi.negative",
    "background": "roi.background",
    "crowd_threshold": "roi.crowd_threshold",
    "samples": "roi.samples",
    "fraction": "roi.fraction",
    "box_head": "box.head",
    "bins": "box.bins",
    "hidden": "box.hidden",
    "dropout": "box.dropout",
    "head_norm": ("box.norm", "mask.norm"),
    "box_beta": "box.beta",
    "masks": "mask",
    "mask_bins": ("mask.bins", "keypoint.bins"),
    "mask_features": "mask.features",
    "mask_depth": "mask.depth",
    "mask_samples": ("mask.samples", "keypoint.samples"),
    "keypoints": "keypoint.count",
    "keypoint_features": "keypoint.features",
    "keypoint_depth": "keypoint.depth",
    "score_threshold": "detect.score_threshold",
    "nms_threshold": "detect.nms_threshold",
    "pre_nms_top_k": "detect.pre_nms_top_k",
    "max_detections": "detect.max_detections",
}
