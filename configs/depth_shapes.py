"""The depth of every pixel of synthetic scenes.

    python scripts/train.py --config=configs/depth_shapes.py --workdir=DIR

Haze and size tell how far a shape is.
"""

from ml_collections import ConfigDict

from configs import scene_shapes
from detjax import experiment


def get_config() -> ConfigDict:
    c = scene_shapes.get_config().to_dict()
    c["model"] |= {"name": "dense_fpn", "loss": c["model"].pop("dense")}
    c["data"] |= {"name": "depth_shapes", "prepare": {"format": "depth_shapes"}}
    del c["data"]["class_weights"]
    return experiment.config(c)
