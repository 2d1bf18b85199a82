"""Mask Scoring R-CNN on fluorescence nuclei: Mask R-CNN's run with a head more.

python scripts/train.py --config=configs/ms_rcnn_nuclei.py --workdir=DIR
"""

from ml_collections import ConfigDict

from configs import mask_rcnn_nuclei


def get_config() -> ConfigDict:
    config = mask_rcnn_nuclei.get_config()
    config.model.name = "ms_rcnn"
    config.model.mask_iou = True
    return config
