"""A small YOLACT on synthetic shapes, from nothing to drawn masks in minutes.

    python scripts/train.py --config=configs/quickstart.py --workdir=runs/quickstart

Two CPU cores (AMD EPYC): about 5 min, segm AP 0.567, bbox AP 0.606 on 200 unseen
images.
"""

from ml_collections import ConfigDict

from detjax import experiment


def get_config() -> ConfigDict:
    return experiment.config(
        {
            "model": {
                "name": "yolact",
                "backbone": {"name": "resnet18", "width": 32, "levels": (2, 3, 4)},
                "fpn": {"features": 32, "extra_levels": 0},
                "priors": {"sizes": ((12, 17), (24, 34), (48, 68)), "ratios": (1,)},
                "mask": {"prototypes": 16, "to_train": 48},
                "detect": {"max_detections": 50},
            },
            "data": {
                "name": "shapes",
                "prepare": {
                    "format": "shapes",
                    "num_train": 2000,
                    "num_val": 200,
                    "size": 128,
                },
                "size": (128, 128),
                "max_objects": 8,
                "min_size": 4,
                "mask_stride": 2,
                "batch_size": 8,
                "augment": {"turn": True},
            },
            "optimizer": {
                "name": "adamw",
                "schedule": {"peak": 2e-3, "warmup_steps": 50},
                "weight_decay": 1e-4,
                "clip_norm": 10.0,
            },
            "train": {
                "steps": 1400,
                "checkpoint_every": 500,
            },
        }
    )
