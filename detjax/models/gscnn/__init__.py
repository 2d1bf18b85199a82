"""Gated-SCNN: gated shape CNNs (Takikawa et al., ICCV 2019).

    b images, c classes
    logits   [b h/2 w/2 c]
    edges    [b h w]: probabilities of where classes meet

Beside a Wide ResNet-38 a narrow stream at full size looks for shapes: gates let
through what the backbone's deeper layers know. Its edges, with Canny's of the picture,
join the backbone's coarsest map in atrous pooling. Parameters are called as in the
authors' code (nv-tlabs/GSCNN).
"""

from detjax.models.gscnn.losses import Loss
from detjax.models.gscnn.model import Backbone, gscnn

__all__ = ["Backbone", "Loss", "gscnn"]
