"""Mask R-CNN on fluorescence nuclei (DSB 2018): 160 images, 256x256, one class.

    python scripts/train.py --config=configs/mask_rcnn_nuclei.py --workdir=DIR

Two CPU cores (AMD EPYC), other work beside it: 14 min, bbox AP 0.541, segm AP 0.557,
AP50 0.883 on the 40 images of val, at 500 detections an image. Without `aligned`
regions and masks segm AP is 0.396: nuclei are ten pixels wide.
"""

from ml_collections import ConfigDict

from configs import yolact_nuclei
from detjax import experiment


def get_config() -> ConfigDict:
    data = yolact_nuclei.get_config().data
    return experiment.config(
        {
            "model": {
                "name": "mask_rcnn",
                "backbone": {
                    "name": "resnet18",
                    "width": 32,
                    "norm": "batch",
                    "levels": (2, 3, 4),
                },
                "fpn": {"features": 48},
                "rpn": {
                    "sizes": ((8, 12), (16, 24), (32, 48), (64, 96)),
                    "ratios": (1,),
                    "pre_nms": (500, 600),
                    "post_nms": (300, 500),
                },
                "roi": {
                    "canonical_size": 64,
                    "aligned": True,
                    "samples": 96,
                    "fraction": 0.5,
                },
                "box": {"hidden": 256},
                "mask": {"features": 48, "depth": 2, "samples": 32},
                "detect": {"pre_nms_top_k": 600, "max_detections": 400},
            },
            "data": data,
            "optimizer": {
                "name": "adamw",
                "schedule": {"peak": 1e-3, "warmup_steps": 100},
                "weight_decay": 1e-4,
                "clip_norm": 10.0,
            },
            "eval": {"max_detections": (1, 10, 500)},
            "train": {"steps": 1500, "checkpoint_every": 500},
        }
    )
