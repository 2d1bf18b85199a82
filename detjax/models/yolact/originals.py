"""The authors' YOLACTs, and the settings of earlier versions."""

from typing import Any

from detjax.models.yolact.mask import Mask
from detjax.models.yolact.net import Backbone, Priors
from detjax.models.yolact.rescore import Rescore

_SIDES = (24, 48, 96, 192, 384)


def _first(backbone: str = "resnet101", side: int = 550) -> dict[str, Any]:
    """The first YOLACT; its priors grow with the input, to whole pixels."""
    sizes = tuple((int(s / 550 * side),) for s in _SIDES)
    return {
        "num_classes": 80,
        "backbone": Backbone(backbone, norm="frozen"),
        "priors": Priors(sizes, square=True),
    }


def _plus(backbone: str, deform_every: int) -> dict[str, Any]:
    """YOLACT++."""
    sizes = tuple(tuple(s * 2 ** (i / 3) for i in range(3)) for s in _SIDES)
    return {
        "num_classes": 80,
        "backbone": Backbone(backbone, deform_every=deform_every, norm="frozen"),
        "priors": Priors(sizes),
        "rescore": Rescore(),
    }


# The authors' models by their names, for their weights. Their priors are square in all
# but YOLACT++, a slip that the first weights were trained with.
ORIGINALS: dict[str, dict[str, Any]] = {
    "yolact_resnet50": _first("resnet50"),
    "yolact_base": _first(),
    # Darknet was trained on pixels in 0..1.
    "yolact_darknet53": {**_first("darknet53"), "pixels": "unit"},
    "yolact_im400": _first(side=400),
    "yolact_im700": {**_first(side=700), "mask": Mask(to_train=300)},
    "yolact_plus_resnet50": _plus("resnet50", 1),
    "yolact_plus_base": _plus("resnet101", 3),
}

# Settings by the names that they had before there were stages.
EARLIER = {
    "backbone_width": "backbone.width",
    "deform_every": "backbone.deform_every",
    "levels": "backbone.levels",
    "norm": "backbone.norm",
    "features": "fpn.features",
    "extra_levels": "fpn.extra_levels",
    "sizes": "priors.sizes",
    "ratios": "priors.ratios",
    "square_anchors": "priors.square",
    "positive": "match.positive",
    "negative": "match.negative",
    "crowd_threshold": "match.crowd_threshold",
    "negative_ratio": "match.negative_ratio",
    "masks": "mask",
    "num_prototypes": "mask.prototypes",
    "masks_to_train": "mask.to_train",
    "mask_weight": "mask.weight",
    "semantic_weight": "mask.semantic_weight",
    "rescoring": "rescore",
    "rescore_weight": "rescore.weight",
    "min_mask_area": "rescore.min_area",
    "score_threshold": "detect.score_threshold",
    "nms_threshold": "detect.nms_threshold",
    "top_k": "detect.top_k",
    "max_detections": "detect.max_detections",
}
