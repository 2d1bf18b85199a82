"""SSD300 with VGG-16 on COCO 2017: the paper's recipe (Liu et al., 2016).

    python scripts/make_dataset.py coco --name=coco --out=datasets --on-error=skip \\
        --split=train=annotations/instances_train2017.json --images=train=train2017 \\
        --split=val=annotations/instances_val2017.json --images=val=val2017
    python scripts/import_weights.py --source=torchvision vgg16.pth \\
        --model=vgg16 --out=weights/vgg16
    python scripts/train.py --config=configs/ssd300_coco.py --workdir=DIR \\
        --config.train.init_from=weights/vgg16

The paper reports a box AP of 23.2 on test-dev2015; torchvision's run of a longer
schedule 25.1 on val2017. It has not been trained here.
"""

from ml_collections import ConfigDict

from detjax import experiment


def get_config() -> ConfigDict:
    return experiment.config(
        {
            # torchvision's VGG saw ImageNet's pixels, the authors' those of Caffe.
            "model": {"name": "ssd300", "pixels": "imagenet", "dtype": "bfloat16"},
            "data": {
                "name": "coco",
                "size": (300, 300),
                "mask_stride": None,
                "batch_size": 32,
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
                    "boundaries": (160_000, 200_000),
                    "warmup_steps": 500,
                    "warmup_start": 1e-5,
                },
                "weight_decay": 5e-4,
            },
            "train": {"steps": 240_000, "log_every": 100, "checkpoint_every": 10_000},
        }
    )
