"""SSD on a small ResNet on blood cells (BCCD), from nothing, at 320x240.

    python scripts/train.py --config=configs/ssd_bccd.py --workdir=DIR

With --config.train.steps=900, half of these steps, and other work beside it
on two CPU cores (AMD EPYC): bbox AP 0.523, AP50 0.861 on the 87 images of val.
"""

from ml_collections import ConfigDict

from configs import yolact_bccd
from detjax import experiment


def get_config() -> ConfigDict:
    return experiment.config(
        {
            "model": {
                "name": "ssd",
                "backbone": {"name": "resnet18", "width": 32, "norm": "batch"},
                "extras": {
                    "features": (128,),
                    "kernels": (3,),
                    "strides": (2,),
                    "paddings": (1,),
                },
                "priors": {
                    "scales": (0.1, 0.2, 0.32, 0.5, 0.8),
                    "ratios": ((1.4,), (1.4,), (1.4,), (1.4,)),
                },
                "pixels": "imagenet",
                "detect": {
                    "nms": "soft",
                    "score_threshold": 0.01,
                    "max_detections": 100,
                },
            },
            "data": yolact_bccd.get_config().data,
            "optimizer": {
                "name": "adamw",
                "schedule": {"peak": 1e-3, "warmup_steps": 100},
                "weight_decay": 1e-4,
                "clip_norm": 10.0,
            },
            "train": {"steps": 1800, "checkpoint_every": 500},
        }
    )
