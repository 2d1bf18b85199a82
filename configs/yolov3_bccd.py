"""YOLOv3-tiny at half of its width on blood cells (BCCD), from nothing, at 320x256.

    python scripts/train.py --config=configs/yolov3_bccd.py --workdir=DIR

With --config.train.steps=900, half of these steps, and other work beside it
on two CPU cores (AMD EPYC): bbox AP 0.363, AP50 0.780 on the 87 images of val.
"""

from ml_collections import ConfigDict

from configs import yolact_bccd
from detjax import experiment


def get_config() -> ConfigDict:
    data = yolact_bccd.get_config().data
    data.size = (256, 320)
    return experiment.config(
        {
            "model": {
                "name": "yolov3_tiny",
                "width": 0.5,
                "detect": {"nms": "soft"},
                "priors": {
                    "sizes": (
                        (18, 18),
                        (40, 38),
                        (46, 47),
                        (56, 53),
                        (76, 73),
                        (118, 107),
                    )
                },
            },
            "data": data,
            "optimizer": {
                "name": "adamw",
                "schedule": {"peak": 1e-3, "warmup_steps": 100},
                "weight_decay": 1e-4,
                "clip_norm": 10.0,
            },
            "train": {"steps": 1800, "checkpoint_every": 500},
        }
    )
