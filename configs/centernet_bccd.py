"""CenterNet on blood cells (BCCD), from nothing, at 320x240.

    python scripts/train.py --config=configs/centernet_bccd.py --workdir=DIR

The data and the steps are those of yolact_bccd. Two CPU cores (AMD EPYC), much other
work beside it: 92 min, bbox AP 0.462, AP50 0.821 on the 87 images of val; YOLACT has
.556. One cell of 4 pixels is an object's only positive, where YOLACT has several priors
at each of three levels, and 205 images are few to learn sizes from at single cells.
"""

from ml_collections import ConfigDict

from configs import yolact_bccd


def get_config() -> ConfigDict:
    config = yolact_bccd.get_config()
    config.model = {
        "name": "centernet",
        "backbone": {
            "name": "resnet18",
            "width": 32,
            "norm": "batch",
            "levels": (5,),
        },
        "up": {"features": (96, 64, 64)},
        "head": {"hidden": 64},
        "detect": {"max_detections": 100},
    }
    return config
