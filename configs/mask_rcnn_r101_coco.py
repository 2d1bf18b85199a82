"""Mask R-CNN with ResNet-101 and FPN on COCO 2017, schedule 1x.

    python scripts/train.py --config=configs/mask_rcnn_r101_coco.py --workdir=DIR \\
        --config.train.init_from=weights/resnet101

The data and weights are made as in mask_rcnn_r50_coco.py. It has not been trained here.
"""

from ml_collections import ConfigDict

from configs import mask_rcnn_r50_coco


def get_config() -> ConfigDict:
    config = mask_rcnn_r50_coco.get_config()
    config.model.backbone = {"name": "resnet101"}
    return config
