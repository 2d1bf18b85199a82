"""Mask R-CNN with ResNet-50 and FPN on COCO 2017, schedule 1x (He et al., 2017).

    python scripts/make_dataset.py coco --name=coco --out=datasets --on-error=skip \\
        --split=train=annotations/instances_train2017.json --images=train=train2017 \\
        --split=val=annotations/instances_val2017.json --images=val=val2017
    python scripts/import_weights.py --source=torchvision resnet50.pth \\
        --model=resnet50 --out=weights/resnet50
    python scripts/train.py --config=configs/mask_rcnn_r50_coco.py --workdir=DIR \\
        --config.train.init_from=weights/resnet50

Published runs of this schedule (90,000 steps at batch 16) report a box AP of about 38
and a mask AP of about 35 on val2017. It has not been trained here.
"""

from ml_collections import ConfigDict

from detjax import experiment


def get_config() -> ConfigDict:
    return experiment.config(
        {
            "model": {"name": "mask_rcnn", "dtype": "bfloat16"},
            "data": {
                "name": "coco",
                "short_side": (800,),
                "long_side": 1333,
                "buckets": ((800, 1088), (1088, 800), (800, 1344), (1344, 800)),
                # Masks on a grid in their box, four times as fine as the head's: 20 MB
                # a batch, where masks of the whole input at stride 2 are 430.
                "mask_stride": None,
                "mask_size": 112,
                "batch_size": 16,
                "augment": {"mirror": True},
            },
            "optimizer": {
                "name": "sgd",
                "schedule": {
                    "peak": 0.02,
                    "decay": "steps",
                    "boundaries": (60_000, 80_000),
                    "warmup_steps": 1000,
                    "warmup_start": 2e-5,
                },
                "weight_decay": 1e-4,
                # The stem, the first stage and every frozen norm of the backbone.
                "freeze": r"^backbone\.body\.(conv1|layer1)\."
                r"|^backbone\.body\.(.*\.)?(bn\d|downsample\.1)\.",
            },
            "train": {"steps": 90_000, "log_every": 100, "checkpoint_every": 5_000},
        }
    )
