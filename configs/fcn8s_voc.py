"""FCN-8s on Pascal VOC (Long et al., CVPR 2015), all at once.

    python scripts/make_dataset.py semantic --name=voc2012 --root=VOCdevkit/VOC2012
    python scripts/import_weights.py --source=torchvision --model=vgg16 \\
        --out=weights/vgg16 vgg16.pth
    python scripts/train.py --config=configs/fcn8s_voc.py --workdir=DIR \\
        --config.train.init_from=weights/vgg16

One picture a step, a momentum of .99, sums over pixels in place of means: the authors'
heavy learning. It has not been trained here.
"""

from ml_collections import ConfigDict

from detjax import experiment


def get_config() -> ConfigDict:
    return experiment.config(
        {
            "model": {"name": "fcn8s_at_once", "loss": {"mean_over": "images"}},
            "data": {
                "name": "voc2012",
                "size": (500, 500),
                "letterbox": True,
                "batch_size": 1,
            },
            "optimizer": {
                "schedule": {"peak": 1e-10, "decay": "constant"},
                "momentum": 0.99,
                "weight_decay": 5e-4,
                "freeze": "upscore",
            },
            "train": {"steps": 100_000, "checkpoint_every": 4000},
        }
    )
