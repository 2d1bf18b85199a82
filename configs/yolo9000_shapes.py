"""YOLO9000 in small: shapes of a tree, three of seven without any box.

    python scripts/train.py --config=configs/yolo9000_shapes.py --workdir=DIR

It learns to find circles, triangles, rectangles and stars from their boxes, and what
ellipses, hexagons and crosses are from pictures that are only labelled; then it looks
for all seven. Two CPU cores (AMD EPYC), other work beside it: a mean bbox AP of 0.125
for the four with boxes and of 0.014 for the three without (bbox/AP/cross: 0.034).
"""

from ml_collections import ConfigDict

from detjax import experiment
from detjax.data.formats import shape_tree


def get_config() -> ConfigDict:
    return experiment.config(
        {
            "model": {
                "name": "yolo9000",
                "num_classes": len(shape_tree.CLASSES),
                "width": 0.25,
                "tree": shape_tree.TREE,
                # A leaf is answered where it is better than a guess.
                "detect": {"tree_threshold": 0.2},
                "priors": {"sizes": ((34, 34), (60, 60), (96, 96))},
            },
            "data": {
                "name": "shape_tree",
                "prepare": {
                    "format": "shape_tree",
                    "num_train": 4000,
                    "num_val": 400,
                    "size": 128,
                },
                # Cells are of 32 pixels: larger than drawn.
                "size": (224, 224),
                "max_objects": 8,
                "min_size": 4,
                "mask_stride": None,
                "batch_size": 8,
                "augment": {"turn": True},
            },
            "optimizer": {
                "name": "adamw",
                "schedule": {"peak": 2e-3, "warmup_steps": 50},
                "weight_decay": 1e-4,
                "clip_norm": 10.0,
            },
            "train": {"steps": 1400, "checkpoint_every": 500},
        }
    )
