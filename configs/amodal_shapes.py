"""CenterNet with boxes of whole objects, what is hidden included, on synthetic shapes.

    python scripts/train.py --config=configs/amodal_shapes.py --workdir=DIR

The evaluation has the same AP of visible boxes beside it ("visible"), against the same
truth. Two CPU cores (AMD EPYC), much other work beside it: 18 min, amodal AP .491,
visible .510 (AP50 .772 both), bbox AP .519 on 200 unseen images: most shapes are seen
whole, and what is learnt of the few others does not yet pay for its noise.
"""

from ml_collections import ConfigDict

from configs import quickstart_centernet


def get_config() -> ConfigDict:
    config = quickstart_centernet.get_config()
    config.model.amodal = True
    config.data.name = "whole_shapes"
    config.data.prepare.amodal = True
    config.data.mask_stride = None
    config.data.amodal = True
    # Beside what visible boxes say of whole objects.
    config.eval = {"baselines": True}
    return config
