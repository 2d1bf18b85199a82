"""Faster R-CNN on blood cells (BCCD): boxes from Pascal VOC XML, at 320x240.

    python scripts/train.py --config=configs/faster_rcnn_bccd.py --workdir=DIR

Two CPU cores (AMD EPYC), other work beside it: 15 min 53 s, bbox AP 0.562, AP50 0.882
on the 87 images of val.
"""

from ml_collections import ConfigDict

from configs import yolact_bccd
from detjax import experiment


def get_config() -> ConfigDict:
    return experiment.config(
        {
            "model": {
                "name": "faster_rcnn",
                "backbone": {
                    "name": "resnet18",
                    "width": 32,
                    "norm": "batch",
                    "levels": (3, 4, 5),
                },
                "fpn": {"features": 64},
                "rpn": {
                    "sizes": ((24,), (48,), (80,), (128,)),
                    "ratios": (0.7, 1, 1.4),
                    "pre_nms": (400, 400),
                    "post_nms": (200, 200),
                },
                "roi": {"canonical_size": 96, "aligned": True, "samples": 128},
                "box": {"hidden": 256},
                "detect": {"pre_nms_top_k": 600},
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
