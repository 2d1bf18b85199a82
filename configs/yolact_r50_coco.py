"""YOLACT-550 with ResNet-50 on COCO 2017; see yolact_r101_coco for the commands.

The authors report 28.2 mask AP on test-dev. It has not been trained here.
"""

from ml_collections import ConfigDict

from configs import yolact_r101_coco


def get_config() -> ConfigDict:
    config = yolact_r101_coco.get_config()
    config.model.backbone.name = "resnet50"
    return config
