"""A small CenterNet on synthetic shapes: objects as points.

    python scripts/train.py --config=configs/quickstart_centernet.py \\
        --workdir=runs/quickstart_centernet

Two CPU cores (AMD EPYC), other work beside it: 7 min, bbox AP .543, AP50 .791 on 200
unseen images.
"""

from ml_collections import ConfigDict

from configs import quickstart


def get_config() -> ConfigDict:
    config = quickstart.get_config()
    config.model = {
        "name": "centernet",
        "backbone": {
            "name": "resnet18",
            "width": 32,
            "norm": "batch",
            "levels": (4,),
        },
        "up": {"features": (64, 64)},
        "head": {"hidden": 48},
        "detect": {"max_detections": 50},
    }
    config.data.mask_stride = None
    config.train.steps = 1400
    return config
