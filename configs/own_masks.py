"""Masks on pictures of your own: a small Mask R-CNN to begin with, and to copy.

    python scripts/train.py --config=configs/own_masks.py --workdir=DIR \
        --config.data.name=mine

Two CPU cores (AMD EPYC): 2.8 s a step from random initialisation, so more than an hour;
`data.batch_size=4` halves it. See own_boxes.py for larger networks.
"""

from ml_collections import ConfigDict

from detjax import experiment


def get_config() -> ConfigDict:
    return experiment.config(
        {
            "model": {
                "name": "mask_rcnn",
                "backbone": {"name": "resnet18", "width": 32, "norm": "batch"},
                "fpn": {"features": 64},
                # What fits your objects: scripts/anchors.py prints it.
                "rpn": {
                    "sizes": ((16,), (32,), (64,), (128,), (256,)),
                    "ratios": (0.5, 1, 2),
                    "pre_nms": (400, 400),
                    "post_nms": (200, 200),
                },
                "roi": {"canonical_size": 96, "aligned": True, "samples": 128},
                "box": {"hidden": 256},
                "mask": {"features": 64, "depth": 2, "samples": 32},
                "detect": {"pre_nms_top_k": 600},
            },
            "data": {
                "name": "mine",
                "size": (320, 320),
                # Pictures keep their shape.
                "letterbox": True,
                "min_size": 2,
                # Masks are learnt on a grid in each object's box.
                "mask_stride": None,
                "mask_size": 56,
                "batch_size": 8,
                # `turn` too, where pictures have no upside.
                "augment": {"colour": True, "crop": True, "mirror": True},
            },
            "optimizer": {
                "name": "adamw",
                "schedule": {"peak": 1e-3, "warmup_steps": 100},
                "weight_decay": 1e-4,
                "clip_norm": 10.0,
            },
            "train": {
                "steps": 1500,
                "checkpoint_every": 250,
                "evaluate_every": 500,
                "best": "segm/AP",
            },
        }
    )
