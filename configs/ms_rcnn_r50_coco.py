"""Mask Scoring R-CNN R50-FPN on COCO 2017, schedule 1x (Huang et al., 2019).

    python scripts/train.py --config=configs/ms_rcnn_r50_coco.py --workdir=DIR \\
        --config.train.init_from=weights/resnet50

The data and weights are made as in mask_rcnn_r50_coco.py. It has not been trained here.
"""

from ml_collections import ConfigDict

from configs import mask_rcnn_r50_coco


def get_config() -> ConfigDict:
    config = mask_rcnn_r50_coco.get_config()
    config.model.name = "ms_rcnn"
    return config
