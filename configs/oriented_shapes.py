"""CenterNet with boxes at an angle, on synthetic shapes.

    python scripts/train.py --config=configs/oriented_shapes.py --workdir=DIR

The truth are the smallest rectangles around masks.
"""

from ml_collections import ConfigDict

from configs import quickstart_centernet


def get_config() -> ConfigDict:
    config = quickstart_centernet.get_config()
    config.model.oriented = True
    config.data.mask_stride = None
    config.data.oriented = True
    # Beside what upright boxes say of the same truth.
    config.eval = {"baselines": True}
    config.train.steps = 2800
    return config
