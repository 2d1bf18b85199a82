"""DeepLabV3+ with the aligned Xception on Cityscapes (Chen et al., ECCV 2018).

    python scripts/make_dataset.py semantic --name=cityscapes --root=DIR
    python scripts/train.py --config=configs/deeplabv3plus_cityscapes.py --workdir=DIR

90,000 steps of crops of 769 pixels. The paper reports a mean IoU of 0.796 on val with
Xception-71. It has not been trained here.
"""

from ml_collections import ConfigDict

from configs import deeplabv3_r50_voc
from detjax import experiment


def get_config() -> ConfigDict:
    c = deeplabv3_r50_voc.get_config().to_dict()
    c["model"] = {"name": "deeplabv3plus_xception"}
    c["data"] |= {"name": "cityscapes", "size": (769, 769)}
    c["data"]["augment"]["crop_size"] = (769, 769)
    c["optimizer"]["schedule"]["peak"] = 0.01
    c["train"]["steps"] = 90_000
    return experiment.config(c)
