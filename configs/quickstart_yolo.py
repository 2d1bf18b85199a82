"""YOLOv3-tiny at half of its width on synthetic shapes, from nothing to drawn boxes.

    python scripts/train.py --config=configs/quickstart_yolo.py --workdir=DIR

Two CPU cores (AMD EPYC), other work beside it: about 9 min, bbox AP 0.416, AP50 0.718
on 200 unseen images.
"""

from ml_collections import ConfigDict

from configs import quickstart
from detjax import experiment


def get_config() -> ConfigDict:
    base = quickstart.get_config()
    base.data.mask_stride = None
    # Half as large again as the pictures: the finer of two maps has cells of 16 pixels.
    base.data.size = (192, 192)
    return experiment.config(
        {
            "model": {
                "name": "yolov3_tiny",
                "width": 0.5,
                "priors": {
                    "sizes": (
                        (22, 22),
                        (34, 34),
                        (46, 46),
                        (66, 54),
                        (54, 66),
                        (90, 90),
                    )
                },
            },
            "data": base.data,
            "optimizer": base.optimizer,
            "train": {"steps": 1400, "checkpoint_every": 500},
        }
    )
