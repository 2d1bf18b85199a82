"""A class for every pixel of pictures of your own: a network to begin with.

    python scripts/train.py --config=configs/own_labels.py --workdir=DIR \\
        --config.data.name=mine

It begins with random weights. With an accelerator take a larger network that starts
from ImageNet's weights, a lower rate and larger crops:

    python scripts/train.py --config=configs/own_labels.py --workdir=DIR \\
        --config.data.name=mine --config.train.init_from=weights/resnet50 \\
        --config.model.backbone.name=resnet50 --config.model.backbone.width=None \\
        --config.model.backbone.norm=batch --config.model.fpn.features=256 \\
        --config.model.head.features=128 --config.optimizer.schedule.peak=2e-4 \\
        --config.data.size="(513, 513)" --config.data.augment.crop_size="(513, 513)"
"""

from ml_collections import ConfigDict

from detjax import experiment


def get_config() -> ConfigDict:
    return experiment.config(
        {
            "model": {
                "name": "semantic_fpn",
                "backbone": {"name": "resnet18", "width": 32, "norm": "group"},
                "fpn": {"features": 64},
                "head": {"features": 64},
            },
            "data": {
                "name": "mine",
                # Evaluation shows whole pictures, which keep their shape.
                "size": (256, 256),
                "letterbox": True,
                "batch_size": 8,
                # Training shows windows of this size of pictures that were scaled.
                "augment": {
                    "colour": True,
                    "mirror": True,
                    "crop_size": (256, 256),
                    "scale": (0.5, 2.0),
                },
            },
            "optimizer": {
                "name": "adamw",
                "schedule": {"peak": 1e-3, "warmup_steps": 100},
                "weight_decay": 1e-2,
                "clip_norm": 10.0,
            },
            "train": {
                "steps": 1500,
                "checkpoint_every": 250,
                "evaluate_every": 500,
                "best": "miou",
            },
        }
    )
