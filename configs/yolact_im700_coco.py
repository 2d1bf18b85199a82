"""YOLACT-700 with ResNet-101 on COCO 2017; see yolact_r101_coco for the commands.

The paper reports 31.2 mask AP on test-dev. It has not been trained here.
"""

from ml_collections import ConfigDict

from configs import yolact_r101_coco


def get_config() -> ConfigDict:
    config = yolact_r101_coco.get_config()
    # Priors grow with the image, to whole pixels.
    scale = 700 / 550
    priors = config.model.priors
    priors.sizes = tuple((int(s * scale),) for (s,) in priors.sizes)
    config.model.mask.to_train = 300
    config.data.size = (700, 700)
    return config
