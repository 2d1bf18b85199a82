"""A classifier slid over synthetic shapes: the detector that the lineage began with.

    python scripts/train.py --config=configs/sliding_window_shapes.py --workdir=DIR

Two CPU cores (AMD EPYC): seven minutes of CPU time, bbox AP 0.053, AP50 0.196 on
the 200 images of val, where YOLACT of configs/quickstart.py has 0.606.
"""

from ml_collections import ConfigDict

from detjax import experiment


def get_config() -> ConfigDict:
    return experiment.config(
        {
            "model": {
                "name": "sliding_window",
                "backbone": {
                    "name": "resnet10",
                    "width": 16,
                    "levels": (3,),
                    "norm": "group",
                },
                "windows": {"side": 32, "sizes": (18.0, 26.0, 37.0, 52.0, 74.0)},
            },
            "data": {
                "name": "shapes",
                "prepare": {"format": "shapes", "num_train": 2000, "num_val": 200},
                "size": (128, 128),
                "batch_size": 16,
                "mask_stride": None,
                "augment": {"turn": True},
            },
            "optimizer": {
                "name": "adamw",
                "schedule": {"peak": 2e-3, "warmup_steps": 50},
                "weight_decay": 1e-2,
            },
            "train": {"steps": 600, "checkpoint_every": 300},
        }
    )
