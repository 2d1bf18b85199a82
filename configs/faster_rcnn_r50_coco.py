"""Faster R-CNN with ResNet-50 and FPN on COCO 2017, schedule 1x (Ren et al., 2015).

    python scripts/train.py --config=configs/faster_rcnn_r50_coco.py --workdir=DIR \\
        --config.train.init_from=weights/resnet50

The data and weights are made as in mask_rcnn_r50_coco.py. It has not been trained here.
"""

from ml_collections import ConfigDict

from configs import mask_rcnn_r50_coco


def get_config() -> ConfigDict:
    config = mask_rcnn_r50_coco.get_config()
    config.model.name = "faster_rcnn"
    config.data.mask_size = None
    return config
