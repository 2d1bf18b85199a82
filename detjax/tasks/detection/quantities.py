"""What can be explained of detections: their scores, boxes, masks and keypoints.

    q    detections: all n in their order, or those at `index`

`index` is [q] for all images or [b q]. What pads detections, or is beyond them, has a
quantity of 0.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from detjax.errors import UserError
from detjax.ops import boxes
from detjax.types import Array, Detections, Quantity

# Probabilities are taken to lie between this and 1 less this: float32 has no log-odds
# of 1.
LEAST = 1e-6


def score(answers: Detections, index: Array | None = None) -> Array:
    """The scores [b q] of detections."""
    return _chosen(answers, answers.scores, index)


def box(
    answers: Detections, index: Array | None = None, side: int | None = None
) -> Array:
    """A side [b q] of the boxes of detections, in pixels of the network's input.

    side: 0 to 3, of left, top, right and bottom; if None the logarithm of the box's
        area, which all of them move.
    """
    return _chosen(answers, measured(answers.boxes, side), index)


def mask(answers: Detections, index: Array | None = None) -> Array:
    """The mean log-odds [b q] of the masks of detections, each inside itself.

    Inside is where the probability is at least a half.

    Raises UserError where the answers have no masks.
    """
    probs = answers.box_masks if answers.masks is None else answers.masks
    if probs is None:
        raise UserError(
            "the detections have no masks to explain; ask for their score or box, or "
            "choose a model that finds masks"
        )
    probs = jnp.clip(probs.astype(jnp.float32), LEAST, 1 - LEAST)
    inside = jax.lax.stop_gradient(probs >= 0.5)
    odds = jnp.log(probs) - jnp.log1p(-probs)
    total = jnp.where(inside, odds, 0.0).sum(axis=(-2, -1))
    return _chosen(answers, total / jnp.maximum(inside.sum(axis=(-2, -1)), 1), index)


def keypoint(
    answers: Detections, index: Array | None = None, point: int | None = None
) -> Array:
    """The scores [b q] of keypoint number `point` of detections; their mean if None.

    Raises UserError where the answers have no such keypoint.
    """
    if answers.keypoints is None:
        raise UserError(
            "the detections have no keypoints to explain; ask for their score or box, "
            "or choose a model that finds keypoints"
        )
    scores = answers.keypoints[..., 2]
    if point is None:
        return _chosen(answers, scores.mean(axis=-1), index)
    if not 0 <= point < scores.shape[-1]:
        raise UserError(
            f"there is no keypoint {point}: the model finds {scores.shape[-1]} of each "
            "object, from 0"
        )
    return _chosen(answers, scores[..., point], index)


def alike(answers: Detections, objects: Array, labels: Array) -> Array:
    """How well the answers have detections like given ones: [b q].

    objects: boxes [b q 4] in pixels of the network's input, with their labels [b q].

    The score times the IoU of the detection of the same class that overlaps each most:
    what stays comparable where the image changes and with it the list of detections.
    D-RISE (Petsiuk et al. 2021, eq. 3) has the largest of these products, which in the
    image itself may be a better neighbour's. The IoU is taken as a number: of its
    maximum, 1, there is no slope.
    """
    place, overlap = again(answers, objects, labels)
    return overlap * score(answers, place)


def again(answers: Detections, objects: Array, labels: Array) -> tuple[Array, Array]:
    """The detections most like given ones, see `alike`: places [b q], IoU [b q].

    The IoU is 0 where there is none. Neither has a gradient.
    """

    def of_image(
        found: Detections, objects: Array, labels: Array
    ) -> tuple[Array, Array]:
        same = (found.labels == labels[:, None]) & found.valid
        overlap = boxes.iou(objects.astype(jnp.float32), found.boxes)
        # Boxes without an area, as before anything is learnt, overlap with nothing.
        own = (objects[:, None] == found.boxes).all(axis=-1)
        overlap = jnp.where(own, 1.0, overlap)
        overlap = jnp.where(same, overlap, 0.0)
        place = overlap.argmax(axis=-1)
        return place, jnp.take_along_axis(overlap, place[:, None], axis=-1)[:, 0]

    plain = Detections(answers.boxes, answers.scores, answers.labels, answers.valid)
    held = jax.lax.stop_gradient((plain, jnp.asarray(objects), jnp.asarray(labels)))
    return jax.vmap(of_image)(*held)


def measured(found: Array, side: int | None) -> Array:
    """One of the sides of boxes [... 4], or the logarithm of their area."""
    if side is not None:
        return found[..., side]
    sides = jnp.maximum(found[..., 2:] - found[..., :2], LEAST)
    return jnp.log(sides).sum(axis=-1)


def _chosen(answers: Detections, of: Array, index: Array | None) -> Array:
    """Those of the numbers [b n] at `index`, of real detections."""
    of = jnp.where(answers.valid, of, 0.0).astype(jnp.float32)
    if index is None:
        return of
    at = jnp.broadcast_to(jnp.asarray(index), (len(of), jnp.shape(index)[-1]))
    # Without these NaN stands for a detection that an image does not have.
    return jnp.take_along_axis(of, at, axis=-1, mode="fill", fill_value=0.0)


QUANTITIES: Mapping[str, Quantity] = {
    "score": score,
    "box": box,
    "mask": mask,
    "keypoint": keypoint,
}
