"""R-CNN (2014) on blood cells (BCCD): selective search, small crops, a narrow ResNet.

    python scripts/train.py --config=configs/rcnn_bccd.py --workdir=DIR

Two CPU cores (AMD EPYC), other work beside it: 28 min without the proposals of the data
set (some 10 more), bbox AP 0.412, AP50 0.776 on the 87 images of val. Half of the time
goes by after the 600 steps: features of all proposals, SVMs, and an evaluation that
sees a thousand crops an image. The paper's own net is `backbone="alexnet"` at crops of
227 pixels.
"""

import os

from ml_collections import ConfigDict

from detjax import experiment

ROOT = os.path.join(os.environ.get("DETJAX_DATA", "../shared/data"), "bccd", "BCCD")


def get_config() -> ConfigDict:
    return experiment.config(
        {
            "model": {
                "name": "rcnn",
                "backbone": {"name": "resnet18", "width": 32, "norm": "batch"},
                "warp": {"size": 64, "padding": 5},
                "sample": {"negative": 0.3},
            },
            "data": {
                "name": "bccd_proposals",
                "prepare": {
                    "format": "voc",
                    "root": ROOT,
                    "splits": ("train", "val", "test"),
                    # Two boxes of the set have no area.
                    "on_error": "skip",
                    # Half the size serves smooth cells better than the paper's 500.
                    "proposals": {
                        "method": "selective_search",
                        "mode": "quality",
                        "max_side": 320,
                        "min_side": 16,
                        "limit": 1000,
                    },
                },
                "size": (480, 640),
                "max_objects": 40,
                "mask_stride": None,
                "batch_size": 4,
                "augment": {"colour": True, "mirror": True},
            },
            "optimizer": {
                "name": "adamw",
                "schedule": {"peak": 1e-3, "warmup_steps": 50},
                "weight_decay": 1e-4,
                "clip_norm": 10.0,
            },
            "train": {"steps": 600},
        }
    )
