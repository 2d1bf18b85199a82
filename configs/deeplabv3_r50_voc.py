"""DeepLabV3 with ResNet-50 on Pascal VOC (Chen et al. 2017), output stride 16.

    python scripts/make_dataset.py semantic --name=voc2012 --root=VOCdevkit/VOC2012
    python scripts/import_weights.py --source=torchvision --model=resnet50 \\
        --out=weights/resnet50 resnet50.pth
    python scripts/train.py --config=configs/deeplabv3_r50_voc.py --workdir=DIR \\
        --config.train.init_from=weights/resnet50

The paper's schedule for VOC, of 30,000 steps of 16 crops of 513 pixels. It has not been
trained here.
"""

from ml_collections import ConfigDict

from detjax import experiment


def get_config() -> ConfigDict:
    return experiment.config(
        {
            "model": {
                "name": "deeplabv3",
                "backbone": {"multi_grid": (1, 2, 4)},
                "auxiliary": None,
            },
            "data": {
                "name": "voc2012",
                "size": (513, 513),
                "letterbox": True,
                "batch_size": 16,
                "augment": {
                    "mirror": True,
                    "crop_size": (513, 513),
                    "scale": (0.5, 2.0),
                },
            },
            "optimizer": {
                "schedule": {"peak": 0.007, "decay": "polynomial"},
                "weight_decay": 1e-4,
            },
            "train": {"steps": 30_000, "checkpoint_every": 2000},
        }
    )
