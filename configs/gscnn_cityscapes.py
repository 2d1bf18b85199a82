"""Gated-SCNN on Cityscapes (Takikawa et al., ICCV 2019).

    python scripts/make_dataset.py semantic --name=cityscapes --root=DIR
    python scripts/train.py --config=configs/gscnn_cityscapes.py --workdir=DIR

175 epochs of 16 crops of 720 pixels. The authors begin with a WideResNet-38 trained on
ImageNet and Mapillary, and report a mean IoU of 0.808 on val. It has not been trained
here.
"""

from ml_collections import ConfigDict

from configs import deeplabv3_r50_voc
from detjax import experiment


def get_config() -> ConfigDict:
    c = deeplabv3_r50_voc.get_config().to_dict()
    c["model"] = {"name": "gscnn"}
    c["data"] |= {"name": "cityscapes", "size": (720, 720)}
    c["data"]["augment"] |= {"crop_size": (720, 720), "colour": True}
    c["optimizer"]["schedule"] = {
        "peak": 0.01,
        "decay": "polynomial",
        "power": 1.0,
    }
    c["train"] = {"steps": 32_500, "checkpoint_every": 2000}
    return experiment.config(c)
