"""CornerNet from its stages, and its originals."""

from typing import Any

import jax
import jax.numpy as jnp

from detjax.backbones.hourglass import SQUEEZE, Hourglass
from detjax.models.cornernet import loss as objective
from detjax.models.cornernet.detect import Detect
from detjax.models.cornernet.loss import Loss
from detjax.models.cornernet.match import Match
from detjax.models.cornernet.net import Head, Net
from detjax.nn.batch import each_image
from detjax.nn.images import Pixels, windows
from detjax.nn.start import initialiser
from detjax.settings import Count, Dtype
from detjax.types import Batch, Inputs, Model, Spec

# Parts of the network by the names of their parameters.
GROUPS = {
    "backbone": r"^backbone\.",
    "corners": r"^(tl|br)_cnvs\.",
    "heat": r"^(tl|br)_heats\.",
    "tags": r"^(tl|br)_tags\.",
    "offsets": r"^(tl|br)_regrs\.",
}


def cornernet(
    *,
    num_classes: Count,
    backbone: Hourglass = Hourglass(),
    head: Head = Head(),
    match: Match = Match(),
    loss: Loss = Loss(),
    detect: Detect = Detect(),
    pixels: Pixels = "cornernet",
    dtype: Dtype = "float32",
) -> Model:
    """CornerNet; the defaults are the authors', trained at 511 x 511 pixels.

    num_classes: the classes that are told apart; if not set those of the data set.
    pixels: how images are normalised; see `nn.images.normalize`.
    dtype: of activations; parameters and losses are float32.

    Raises UserError where the sizes of the hourglasses do not go together.
    """
    kind = jnp.dtype(dtype)
    net = Net(backbone.body(kind), head, num_classes, pixels, kind)

    def losses_of(params, state, batch: Batch, key):
        images, seen = batch.inputs.images, batch.inputs.view.valid
        maps, updated = net.apply(
            {"params": params, **state}, images, train=True, mutable=[*state]
        )
        size = images.shape[1:3]

        def one(maps, objects):
            cells = maps[0].tl.tag.shape
            target = match.targets(objects, size, cells, num_classes)
            return loss.sums(maps, target), objective.counts(target)

        sums, counts = jax.tree.map(
            lambda x: jnp.sum(jnp.where(seen, x, 0)),
            each_image(one)(maps, batch.target),
        )
        parts = objective.divided(sums, counts)
        return sum(parts.values()), (
            updated,
            {**parts, "positives": counts["offset"]},
        )

    def predict(params, state, inputs: Inputs):
        maps: Any = net.apply({"params": params, **state}, inputs.images)
        (h, w), (mh, mw) = inputs.images.shape[1:3], maps[-1].tl.tag.shape[1:]
        scale = jnp.array([w / mw, h / mh], jnp.float32)

        def one(maps, window):
            return detect(maps, window, scale=scale)

        return each_image(one)(maps[-1], windows(inputs))

    spec = Spec("detection", num_classes, groups=GROUPS)
    return Model(spec, initialiser(net), losses_of, predict, net)


# Of COCO's 80 classes.
ORIGINALS: dict[str, dict[str, Any]] = {
    "cornernet_hourglass104": {"num_classes": 80},
    "cornernet_squeeze": {
        "num_classes": 80,
        "backbone": SQUEEZE,
        "head": Head(kernel=1),
        "detect": Detect(corners=20, pairs=100),
    },
}
