"""Boxes on pictures of your own: a small Faster R-CNN to begin with, and to copy.

    python scripts/train.py --config=configs/own_boxes.py --workdir=DIR \
        --config.data.name=mine

Two CPU cores (AMD EPYC): 1.2 s a step, so half an hour, from random initialisation.
With an accelerator take a larger network that starts from ImageNet's weights, a lower
rate and larger pictures:

    python scripts/train.py --config=configs/own_boxes.py --workdir=DIR \
        --config.data.name=mine --config.train.init_from=weights/resnet50 \
        --config.model.backbone.name=resnet50 --config.model.backbone.width=None \
        --config.model.backbone.norm=frozen --config.model.fpn.features=256 \
        --config.optimizer.schedule.peak=2e-4 --config.data.size="(640, 640)"
"""

from ml_collections import ConfigDict

from detjax import experiment


def get_config() -> ConfigDict:
    return experiment.config(
        {
            "model": {
                "name": "faster_rcnn",
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
                "detect": {"pre_nms_top_k": 600},
            },
            "data": {
                "name": "mine",
                "size": (320, 320),
                # Pictures keep their shape.
                "letterbox": True,
                "min_size": 2,
                "mask_stride": None,
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
                "best": "bbox/AP",
            },
        }
    )
