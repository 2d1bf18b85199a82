"""PSPNet with ResNet-50 on ADE20K's SceneParse150 (Zhao et al., CVPR 2017).

    python scripts/make_dataset.py semantic --name=ade20k --root=ADEChallengeData2016
    python scripts/train.py --config=configs/pspnet50_ade20k.py --workdir=DIR

A hundred epochs of 16 crops of 473 pixels, as the authors' later code has them, which
reports a mean IoU of 0.4189 at one scale. Its ResNet has a stem of three convolutions:
ImageNet's usual weights do not fit. It has not been trained here.
"""

from ml_collections import ConfigDict

from configs import deeplabv3_r50_voc
from detjax import experiment


def get_config() -> ConfigDict:
    c = deeplabv3_r50_voc.get_config().to_dict()
    c["model"] = {"name": "pspnet50"}
    c["data"] |= {"name": "ade20k", "size": (473, 473)}
    c["data"]["augment"] |= {
        "crop_size": (473, 473),
        "scale": (0.5, 2.0),
        "rotate": 10.0,
        "blur": 0.5,
    }
    c["optimizer"] |= {
        "schedule": {"peak": 0.01, "decay": "polynomial"},
        "rates": {"head": 10, "auxiliary": 10},
    }
    c["train"] = {"steps": 126_000, "checkpoint_every": 5000}
    return experiment.config(c)
