"""Masks on pictures of your own: a small Mask R-CNN to begin with, and to copy.

    python scripts/train.py --config=configs/own_masks.py --workdir=DIR \
        --config.data.name=mine

Two CPU cores (AMD EPYC): 2.8 s a step from random initialisation, so more than an hour;
`data.batch_size=4` halves it. See own_boxes.py for larger networks.
"""

from ml_collections import ConfigDict

from configs import own_boxes


def get_config() -> ConfigDict:
    config = own_boxes.get_config()
    config.model.name = "mask_rcnn"
    config.model.mask = {"features": 64, "depth": 2, "samples": 32}
    # Masks are learnt on a grid in each object's box.
    config.data.mask_size = 56
    config.train.best = "segm/AP"
    return config
