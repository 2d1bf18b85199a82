"""YOLACT++ with ResNet-50 on COCO 2017; see yolact_r101_coco for the commands.

The authors report 34.1 mask AP on test-dev. It has not been trained here.
"""

from ml_collections import ConfigDict

from configs import yolact_plus_r101_coco


def get_config() -> ConfigDict:
    config = yolact_plus_r101_coco.get_config()
    config.model.backbone.update(name="resnet50", deform_every=1)
    return config
