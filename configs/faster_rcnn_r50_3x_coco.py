"""Faster R-CNN R50-FPN on COCO, schedule 3x with short sides of 640 to 800 pixels.

    python scripts/train.py --config=configs/faster_rcnn_r50_3x_coco.py --workdir=DIR \\
        --config.train.init_from=weights/resnet50

The data and weights are made as in mask_rcnn_r50_coco.py. It has not been trained here.
"""

from ml_collections import ConfigDict

from configs import faster_rcnn_r50_coco, mask_rcnn_r50_3x_coco


def get_config() -> ConfigDict:
    return mask_rcnn_r50_3x_coco.longer(faster_rcnn_r50_coco.get_config())
