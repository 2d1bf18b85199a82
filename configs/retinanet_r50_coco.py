"""RetinaNet with ResNet-50 and FPN on COCO 2017, schedule 1x (Lin et al., 2017).

    python scripts/train.py --config=configs/retinanet_r50_coco.py --workdir=DIR \\
        --config.train.init_from=weights/resnet50

The data and weights are made as in mask_rcnn_r50_coco.py. Published runs of this
schedule report a box AP of about 36 on val2017. It has not been trained here.
"""

from ml_collections import ConfigDict

from configs import faster_rcnn_r50_coco


def get_config() -> ConfigDict:
    config = faster_rcnn_r50_coco.get_config()
    config.model.name = "retinanet"
    config.optimizer.schedule.peak = 0.01
    return config
