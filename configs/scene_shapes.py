"""Labels and depths of synthetic scenes from one network: Kendall et al. (CVPR 2018).

    python scripts/train.py --config=configs/scene_shapes.py --workdir=DIR

Two CPU cores (AMD EPYC), --config.train.steps=500, three minutes: mean IoU 0.536, depth
within AbsRel 0.061. Fixed weights in place of learnt ones, with
--config.model.weighting.kind=fixed: 0.498 and 0.064.
"""

from ml_collections import ConfigDict

from configs import quickstart_semantic
from detjax import experiment


def get_config() -> ConfigDict:
    c = quickstart_semantic.get_config().to_dict()
    c["model"] |= {"name": "scene_fpn", "dense": {"start": 8.0}}
    # Haze tells how far a shape is: other colours would take that away.
    c["data"] |= {
        "name": "scene_shapes",
        "prepare": {"format": "scene_shapes"},
        "augment": {"turn": True},
    }
    return experiment.config(c)
