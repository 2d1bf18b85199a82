"""RetinaNet on fluorescence nuclei (DSB 2018): boxes of one class, 256x256.

    python scripts/train.py --config=configs/retinanet_nuclei.py --workdir=DIR

Made for comparisons of ways to begin, as scripts/transfer.py does; its whole schedule
has not been run.
"""

from ml_collections import ConfigDict

from configs import retinanet_bccd, yolact_nuclei
from detjax import experiment


def get_config() -> ConfigDict:
    c = retinanet_bccd.get_config()
    c.model.backbone.levels = (2, 3, 4)
    c.model.priors.sizes = ((7, 11), (16, 23), (32, 48))
    c.model.priors.ratios = (1,)
    c.model.detect.max_detections = 400
    c.data = yolact_nuclei.get_config().data
    c.data.mask_stride = None
    c.eval = {"max_detections": (1, 10, 500)}
    return experiment.config(c.to_dict())
