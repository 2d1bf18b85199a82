"""Fast R-CNN on blood cells (BCCD): R-CNN's proposals, pooled from one map.

    python scripts/train.py --config=configs/fast_rcnn_bccd.py --workdir=DIR

Two CPU cores (AMD EPYC), much other work beside it: 32 min, half of them for the
proposals of the data set, bbox AP 0.431, AP50 0.759 on the 87 images of val. After 300
steps it was 0.427, 0.777: what selective search proposes is the limit.
"""

from ml_collections import ConfigDict

from configs import rcnn_bccd
from detjax import experiment


def get_config() -> ConfigDict:
    return experiment.config(
        {
            "model": {
                "name": "fast_rcnn",
                "backbone": {"name": "resnet18", "width": 32, "norm": "batch"},
                "box": {"hidden": 256, "dropout": 0.0},
            },
            "data": rcnn_bccd.get_config().data,
            "optimizer": {
                "name": "adamw",
                "schedule": {"peak": 1e-3, "warmup_steps": 100},
                "weight_decay": 1e-4,
                "clip_norm": 10.0,
            },
            "train": {"steps": 800, "checkpoint_every": 400},
        }
    )
