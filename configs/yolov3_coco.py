"""YOLOv3 on COCO 2017: the authors' recipe (Redmon and Farhadi, 2018).

    python scripts/import_weights.py --source=darknet darknet53.conv.74 \\
        --model=yolov3.cfg --out=weights/darknet53
    python scripts/train.py --config=configs/yolov3_coco.py --workdir=DIR \\
        --config.train.init_from=weights/darknet53

The data are made as in mask_rcnn_r50_coco.py. The file ends behind Darknet-53: what
comes after it starts afresh. The paper reports an AP50 of 55.3 at 416 pixels on
test-dev. It has not been trained here.
"""

from ml_collections import ConfigDict

from configs import yolov2_voc


def get_config() -> ConfigDict:
    config = yolov2_voc.get_config()
    config.model.name = "yolov3"
    config.model.priors.sizes = None
    config.data.name = "coco"
    config.eval.voc = None
    config.optimizer.schedule.boundaries = (400_000, 450_000)
    config.train.steps = 500_200
    return config
