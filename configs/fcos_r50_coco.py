"""FCOS with ResNet-50 and FPN on COCO 2017, schedule 1x (Tian et al., 2019).

    python scripts/train.py --config=configs/fcos_r50_coco.py --workdir=DIR \\
        --config.train.init_from=weights/resnet50

The data and weights are made as in mask_rcnn_r50_coco.py. The authors report a box AP
of about 38.6 with these parts. It has not been trained here.
"""

from ml_collections import ConfigDict

from configs import retinanet_r50_coco


def get_config() -> ConfigDict:
    config = retinanet_r50_coco.get_config()
    config.model.name = "fcos"
    return config
