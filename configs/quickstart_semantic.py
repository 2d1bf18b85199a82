"""A small feature pyramid that names every pixel of synthetic shapes: no download.

    python scripts/train.py --config=configs/quickstart_semantic.py --workdir=DIR

Two CPU cores (AMD EPYC): four minutes, mean IoU 0.686 on 200 unseen pictures.
"""

from ml_collections import ConfigDict

from detjax import experiment


def get_config() -> ConfigDict:
    return experiment.config(
        {
            "model": {
                "name": "semantic_fpn",
                "backbone": {"name": "resnet10", "width": 16, "norm": "batch"},
                "fpn": {"features": 64},
                "head": {"features": 32, "norm": "batch"},
            },
            "data": {
                "name": "semantic_shapes",
                "prepare": {"format": "semantic_shapes"},
                "size": (128, 128),
                "batch_size": 16,
                "augment": {"turn": True},
                # Five pixels of six are background.
                "class_weights": "median_frequency",
            },
            "optimizer": {
                "name": "adamw",
                "schedule": {"peak": 4e-3, "warmup_steps": 50},
                "weight_decay": 1e-2,
            },
            "train": {"steps": 900, "checkpoint_every": 300},
        }
    )
