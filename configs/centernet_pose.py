"""A small CenterNet on synthetic figures: boxes and joints, both told by the centre.

    python scripts/train.py --config=configs/centernet_pose.py --workdir=DIR

It has not been trained to its end here.
"""

from ml_collections import ConfigDict

from configs import hourglass_pose


def get_config() -> ConfigDict:
    config = hourglass_pose.get_config()
    config.model = {
        "name": "centernet",
        "backbone": {
            "name": "resnet18",
            "width": 32,
            "norm": "batch",
            "levels": (5,),
        },
        "up": {"features": (96, 64, 64)},
        "head": {"hidden": 48},
        "pose": {"count": 14, "candidates": 20},
        "detect": {"max_detections": 20},
    }
    config.optimizer.clip_norm = 10.0
    config.train.steps = 600
    return config
