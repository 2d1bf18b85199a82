"""YOLACT without masks on synthetic shapes: a backbone that other runs start from.

    python scripts/train.py --config=configs/shapes_backbone.py --workdir=DIR

With --config.train.init_from=DIR a run on other pictures begins with its backbone
(resnet18 of width 32), be it a detector's or a classifier's.
"""

from ml_collections import ConfigDict

from configs import quickstart
from detjax import experiment


def get_config() -> ConfigDict:
    c = quickstart.get_config().to_dict()
    c["model"] |= {
        "backbone": {"name": "resnet18", "width": 32, "levels": (2, 3, 4, 5)},
        "priors": {"sizes": ((12, 17), (24, 34), (48, 68), (80, 96)), "ratios": (1,)},
        "mask": None,
    }
    c["data"]["mask_stride"] = None
    return experiment.config(c)
