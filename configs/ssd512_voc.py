"""SSD512 with VGG-16 on Pascal VOC: the paper's recipe (Liu et al., 2016).

    python scripts/make_dataset.py voc --name=voc --root=VOCdevkit/VOC2012 \\
        --split train val
    python scripts/train.py --config=configs/ssd512_voc.py --workdir=DIR \\
        --config.train.init_from=weights/vgg16

The weights are imported as in ssd300_coco.py. The paper reports a mean AP of 76.8 on
VOC2007's test set, trained on VOC2007's and VOC2012's trainval. It has not been trained
here.
"""

from ml_collections import ConfigDict

from configs import ssd300_coco


def get_config() -> ConfigDict:
    config = ssd300_coco.get_config()
    config.model.name = "ssd512"
    config.data.name = "voc"
    config.data.size = (512, 512)
    config.optimizer.schedule.boundaries = (60_000,)
    config.train.steps = 80_000
    return config
