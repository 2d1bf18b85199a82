"""YOLACT-550 with ResNet-101 on COCO 2017: the paper's recipe (Bolya et al., 2019).

    python scripts/make_dataset.py coco --name=coco --out=datasets --on-error=skip \\
        --split=train=annotations/instances_train2017.json --images=train=train2017 \\
        --split=val=annotations/instances_val2017.json --images=val=val2017
    python scripts/import_weights.py --source=torchvision resnet101.pth \\
        --model=resnet101 --out=weights/resnet101
    python scripts/train.py --config=configs/yolact_r101_coco.py --workdir=DIR \\
        --config.train.init_from=weights/resnet101

The paper reports 29.8 mask AP on test-dev from ImageNet weights, 800,000 steps at batch
8. It has not been trained here.
"""

from ml_collections import ConfigDict

from detjax import experiment


def get_config() -> ConfigDict:
    return experiment.config(
        {
            "model": {
                "name": "yolact",
                "backbone": {"name": "resnet101", "norm": "frozen"},
                "priors": {
                    "sizes": ((24,), (48,), (96,), (192,), (384,)),
                    "square": True,
                },
                "dtype": "bfloat16",
            },
            "data": {
                "name": "coco",
                "size": (550, 550),
                "max_objects": 100,
                # The original drops boxes under 4 of its 550 pixels.
                "min_size": 4,
                "mask_stride": 4,
                "batch_size": 8,
                "augment": {
                    "colour": True,
                    "expand_to": 4.0,
                    "crop": True,
                    "mirror": True,
                },
            },
            "optimizer": {
                "name": "sgd",
                "schedule": {
                    "peak": 1e-3,
                    "decay": "steps",
                    "boundaries": (280_000, 600_000, 700_000, 750_000),
                    "warmup_steps": 500,
                    "warmup_start": 1e-4,
                },
                "momentum": 0.9,
                "weight_decay": 5e-4,
                # The scales and biases of frozen batch norm do not move either.
                "freeze": r"^backbone\.(.*\.)?(bn\d|downsample\.1)\.",
            },
            "train": {
                "steps": 800_000,
                "log_every": 100,
                "checkpoint_every": 10_000,
                # A folder that scripts/import_weights.py wrote from resnet101.pth.
            },
        }
    )
