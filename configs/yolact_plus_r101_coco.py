"""YOLACT++ with ResNet-101 on COCO 2017; see yolact_r101_coco for the commands.

The authors report 34.6 mask AP on test-dev. It has not been trained here.
"""

from ml_collections import ConfigDict

from configs import yolact_r101_coco


def get_config() -> ConfigDict:
    config = yolact_r101_coco.get_config()
    # Three scales and three shapes of prior a location, deformable convolutions in
    # every third block, masks rescored by a network of their own.
    config.model.backbone.deform_every = 3
    config.model.rescore = True
    sides = [side for (side,) in config.model.priors.sizes]
    config.model.priors = {
        "sizes": tuple(tuple(s * 2 ** (i / 3) for i in range(3)) for s in sides)
    }
    return config
