"""Matching of priors or proposals to the objects of one image."""

import jax.numpy as jnp

from detjax.ops import assign, columns
from detjax.types import Array, Objects


def match(
    objects: Objects,
    real: Array,
    priors: Array,
    *,
    positive: float,
    negative: float,
    crowd_threshold: float,
    low_quality: bool,
    background: float = 0.0,
    usable: Array | None = None,
) -> assign.Match:
    """The `Match` of boxes [p 4], priors or proposals, with the `real` objects [n].

    Boxes on crowds are neither positive nor negative, nor are those that are not
    `usable` [p]; the other settings are those of `assign.match`.
    """
    truth = jnp.where(real[:, None], objects.boxes, 0.0)
    iou = columns.iou_rows(truth, priors)
    found = assign.match(
        iou if usable is None else lambda i: jnp.where(usable, iou(i), -1.0),
        real,
        positive,
        negative,
        force=False,
        crowd_rows=columns.iou_crowd_rows(priors, objects.boxes),
        crowd_valid=objects.valid & objects.crowd,
        crowd_threshold=crowd_threshold,
        low_quality=low_quality,
        background=background,
    )
    if usable is None:
        return found
    return found._replace(
        positive=found.positive & usable, negative=found.negative & usable
    )
