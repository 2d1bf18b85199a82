"""YOLOv2 on Pascal VOC: the paper's recipe (Redmon and Farhadi, 2017).

    python scripts/make_dataset.py voc --name=voc --root=VOCdevkit/VOC2012 \\
        --split train val
    python scripts/import_weights.py --source=darknet darknet19_448.conv.23 \\
        --model=darknet19_448.cfg --out=weights/darknet19
    python scripts/train.py --config=configs/yolov2_voc.py --workdir=DIR \\
        --config.train.init_from=weights/darknet19 --config.train.init_allow=.

The start is a classifier that was fine-tuned at 448 x 448 pixels, the paper's
high-resolution classifier; every ten batches the input has another size. The paper
reports a mean AP of 76.8 at 416 pixels on VOC2007's test set, trained on VOC2007's and
VOC2012's trainval. It has not been trained here.
"""

from ml_collections import ConfigDict

from detjax import experiment
from detjax.models.darknet import yolos


def get_config() -> ConfigDict:
    return experiment.config(
        {
            "model": {
                "name": "yolov2",
                "priors": {"sizes": tuple((32 * w, 32 * h) for w, h in yolos.V2_VOC)},
                "dtype": "bfloat16",
            },
            "data": {
                "name": "voc",
                "size": (416, 416),
                "sizes": tuple((side, side) for side in range(320, 609, 32)),
                "size_every": 10,
                "letterbox": True,
                "fill": (127, 127, 127),
                "mask_stride": None,
                "batch_size": 64,
                "augment": {
                    "colour": True,
                    "expand_to": 1.4,
                    "crop": True,
                    "mirror": True,
                },
            },
            "optimizer": {
                "name": "sgd",
                "schedule": {
                    "peak": 1e-3,
                    "decay": "steps",
                    "boundaries": (40_000, 60_000),
                    "warmup_steps": 1000,
                },
                "weight_decay": 5e-4,
            },
            "eval": {"voc": "11"},
            "train": {"steps": 80_200, "log_every": 100, "checkpoint_every": 5_000},
        }
    )
