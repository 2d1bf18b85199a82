"""DeepLabs by the names of their publishers, for their weights."""

from typing import Any

from detjax.models.deeplab.aspp import Pooling
from detjax.models.pixelwise import Auxiliary, Backbone, Loss

# torchvision has the dilations of an output stride of 8 at 16 too. Its weights are
# those of COCO with VOC's 20 classes and a background, which is the first.
_RATES = Pooling(rates=(12, 24, 36))
V3: dict[str, dict[str, Any]] = {
    **{
        f"deeplabv3_{name}": {
            "num_classes": 21,
            "backbone": Backbone(name, output_stride=8),
            "aspp": _RATES,
        }
        for name in ("resnet50", "resnet101")
    },
    "deeplabv3_mobilenet_v3_large": {
        "num_classes": 21,
        "backbone": Backbone(
            "mobilenet_v3_large", output_stride=16, first_at_stride=True
        ),
        "aspp": _RATES,
        "auxiliary": Auxiliary(level=3),
    },
}
# The loss is divided by the number of images once more.
PLUS: dict[str, dict[str, Any]] = {
    "deeplabv3plus_resnet101": {
        "num_classes": 21,
        "backbone": Backbone("resnet101", dilate_at_once=True, multi_grid=(1, 2, 4)),
        "loss": Loss(mean_over="pixels_and_images"),
    },
    "deeplabv3plus_xception": {
        "num_classes": 21,
        "backbone": Backbone("xception_aligned"),
        "loss": Loss(mean_over="pixels_and_images"),
    },
}
