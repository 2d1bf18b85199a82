"""Mask R-CNN R50-FPN on COCO, schedule 3x with short sides of 640 to 800 pixels.

    python scripts/train.py --config=configs/mask_rcnn_r50_3x_coco.py --workdir=DIR \\
        --config.train.init_from=weights/resnet50

The data and weights are made as in mask_rcnn_r50_coco.py. It has not been trained here.
"""

from ml_collections import ConfigDict

from configs import mask_rcnn_r50_coco


def longer(config: ConfigDict) -> ConfigDict:
    """`config` at three times the steps, over short sides of 640 to 800 pixels."""
    config.data.short_side = (640, 672, 704, 736, 768, 800)
    config.optimizer.schedule.boundaries = (210_000, 250_000)
    config.train.steps = 270_000
    return config


def get_config() -> ConfigDict:
    return longer(mask_rcnn_r50_coco.get_config())
