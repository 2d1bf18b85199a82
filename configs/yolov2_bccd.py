"""YOLOv2 at a quarter of its width on blood cells (BCCD), from nothing, at 320x256.

    python scripts/train.py --config=configs/yolov2_bccd.py --workdir=DIR

With --config.train.steps=900, half of these steps, and other work beside it
on two CPU cores (AMD EPYC): bbox AP 0.307, AP50 0.593 on the 87 images of val.
"""

from ml_collections import ConfigDict

from configs import yolov3_bccd
from detjax import experiment


def get_config() -> ConfigDict:
    config = yolov3_bccd.get_config()
    return experiment.config(
        {
            "model": {
                "name": "yolov2",
                "width": 0.25,
                "detect": {"nms": "soft"},
                "priors": {
                    "sizes": ((19, 19), (41, 38), (48, 46), (58, 55), (106, 97))
                },
            },
            "data": config.data,
            "optimizer": config.optimizer,
            "train": config.train,
        }
    )
