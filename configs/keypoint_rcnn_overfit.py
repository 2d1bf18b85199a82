"""Keypoint R-CNN on one photograph of one person: it has to learn it by heart.

    python scripts/train.py --config=configs/keypoint_rcnn_overfit.py --workdir=DIR

Two CPU cores (AMD EPYC), other work beside it: 2 min 41 s, keypoint AP 1.000.
The photograph is also what is evaluated: this shows that keypoints are learnt from a
file to a drawing, and nothing about other people. The file lists four photographs;
those that are not beside it are skipped.
"""

import os

from ml_collections import ConfigDict

from detjax import experiment

ROOT = os.path.join(
    os.environ.get("DETJAX_DATA", "../shared/data"),
    *("keypoints_mmpose_coco", "tests", "data", "coco"),
)


def get_config() -> ConfigDict:
    return experiment.config(
        {
            "model": {
                "name": "keypoint_rcnn",
                "backbone": {
                    "name": "resnet18",
                    "width": 32,
                    # Batches of one image have no statistics.
                    "norm": "group",
                    "levels": (3, 4),
                },
                "fpn": {"features": 64},
                "rpn": {
                    "sizes": ((64,), (128,), (256,)),
                    "pre_nms": (200, 100),
                    "post_nms": (100, 50),
                },
                "roi": {"canonical_level": 3, "samples": 64},
                "box": {"hidden": 128},
                "keypoint": {"features": 64, "depth": 4},
                "detect": {"max_detections": 20},
            },
            "data": {
                "name": "one_skier",
                "prepare": {
                    "format": "coco",
                    "splits": {"train": os.path.join(ROOT, "test_coco.json")},
                    "images": ROOT,
                    "on_error": "skip",
                },
                "eval_split": "train",
                "size": (224, 320),
                "max_objects": 4,
                "mask_stride": None,
                "keypoints": True,
                "batch_size": 1,
                "augment": {"mirror": True},
            },
            "optimizer": {
                "name": "adamw",
                "schedule": {"peak": 1e-3, "warmup_steps": 50},
                "clip_norm": 10.0,
            },
            "train": {"steps": 400},
        }
    )
