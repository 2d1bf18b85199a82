"""The second stage of a detector, for one image: samples, losses, detections.

    p        proposals
    k        sampled regions, the positives first
    c        classes; index c is the background, in logits and in boxes

Girshick 2015 (Fast R-CNN), section 2.3; He et al. 2017 (Mask R-CNN), section 3.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from detjax import losses
from detjax.nn import rpn
from detjax.ops import assign, boxes, heatmaps, nms, roi
from detjax.types import Array, Detections, Objects, Proposals

WEIGHTS = (10, 10, 5, 5)  # of the deltas (dx, dy, dw, dh)
MIN_SIDE = 1e-2  # pixels; a detection that is smaller is none


class Regions(NamedTuple):
    """What is learnt from, k regions of one image."""

    boxes: Array  # [k 4]
    chosen: Array  # [k] bool: not padding
    positive: Array  # [k] bool
    object: Array  # [k] int32: of the positives
    labels: Array  # [k] int32: c where not positive
    deltas: Array  # [k 4]: to the object, of the positives

    def first(self, count: int) -> "Regions":
        return Regions(*(x[:count] for x in self))


def sample(
    proposals: Proposals,
    objects: Objects,
    key: Array,
    *,
    num_classes: int,
    positive: float,
    negative: float,
    background: float,
    crowd_threshold: float,
    samples: int,
    fraction: float,
) -> Regions:
    """Regions drawn from the proposals and the objects' own boxes, with their targets.

    A region is positive from IoU `positive` up, a negative from `background` up and
    below `negative`; those between, and those on crowds, are left out.
    """
    real = assign.learnable(objects)
    truth = jnp.where(real[:, None], objects.boxes, 0.0)
    everything = lax.stop_gradient(jnp.concatenate([proposals.boxes, truth]))
    valid = jnp.concatenate([proposals.valid, real])
    match = rpn.targets(
        objects,
        real,
        everything,
        positive=positive,
        negative=negative,
        crowd_threshold=crowd_threshold,
        low_quality=False,
        background=background,
    )
    drawn = assign.sample(
        match.positive & valid, match.negative & valid, samples, fraction, key
    )
    rois, index = everything[drawn.index], match.index[drawn.index]
    labels = jnp.where(drawn.positive, objects.labels[index], num_classes)
    aim = jnp.where(drawn.positive[:, None], truth[index], rois)
    deltas = boxes.encode_rcnn(aim, rois, WEIGHTS)
    return Regions(rois, drawn.chosen, drawn.positive, index, labels, deltas)


def box_losses(
    logits: Array, deltas: Array, regions: Regions, beta: float = 1 / 9
) -> tuple[Array, Array, Array]:
    """Cross entropy [] and smooth L1 [] of one image, summed, and the samples' count.

    A region's box is that of its own class, of deltas [k c+1 4]. Smooth L1 turns
    straight at `beta`: 1 in Fast R-CNN.
    """
    entropy = losses.softmax_cross_entropy(logits, regions.labels)
    own = jnp.take_along_axis(deltas, regions.labels[:, None, None], axis=1)[:, 0]
    distance = losses.smooth_l1(own, regions.deltas, beta).sum(axis=-1)
    return (
        jnp.sum(jnp.where(regions.chosen, entropy, 0.0)),
        jnp.sum(jnp.where(regions.positive, distance, 0.0)),
        jnp.sum(regions.chosen),
    )


def of_class(values: Array, labels: Array) -> Array:
    """Maps [k r r] of each region's class, of [k r r c+1]."""
    return jnp.take_along_axis(values, labels[:, None, None, None], axis=-1)[..., 0]


def mask_targets(
    regions: Regions,
    objects: Objects,
    bins: int,
    size: tuple[int, int],
    aligned: bool = False,
) -> Array:
    """The masks of the regions' objects, cut out to [k bins bins], in 0..1.

    They are read from `box_masks` where the objects have those, else from `masks`.
    """
    if objects.box_masks is not None:
        frames = objects.boxes[regions.object]
        return roi.align_box_masks(
            objects.box_masks[regions.object],
            frames,
            # Others may lie anywhere, and the largest in its frame's cells sets the
            # time.
            jnp.where(regions.positive[:, None], regions.boxes, frames),
            bins=bins,
            aligned=aligned,
        )
    h, w = objects.masks.shape[1:]
    return roi.align_masks(
        objects.masks[regions.object],
        regions.boxes,
        bins=bins,
        scale=(h / size[0], w / size[1]),
        aligned=aligned,
    )


def mask_loss(logits: Array, truth: Array, regions: Regions) -> tuple[Array, Array]:
    """Cross entropy [] of the positives' masks [k r r], summed, and their count."""
    loss = losses.sigmoid_cross_entropy(logits, truth).mean(axis=(1, 2))
    return jnp.sum(jnp.where(regions.positive, loss, 0.0)), jnp.sum(regions.positive)


def keypoint_loss(
    maps: Array, regions: Regions, objects: Objects
) -> tuple[Array, Array]:
    """Cross entropy [] of the keypoints' cells, summed, and how many can be seen.

    `maps` [k s s keypoints] are logits; each is a softmax over its cells.
    """
    n, side, _, count = maps.shape
    cell, seen = heatmaps.cells(objects.keypoints[regions.object], regions.boxes, side)
    seen &= regions.positive[:, None]
    logits = jnp.moveaxis(maps, -1, 1).reshape(n, count, side * side)
    loss = losses.softmax_cross_entropy(logits, cell)
    return jnp.sum(jnp.where(seen, loss, 0.0)), jnp.sum(seen)


def mask_fit(
    probs: Array, truth: Array, regions: Regions, objects: Objects, size
) -> Array:
    """The IoU [k] of the masks [k r r] with their objects' whole masks.

    What of an object lies outside its region counts as missed. Huang et al. 2019
    (Mask Scoring R-CNN), section 3.3.
    """
    cell = boxes.area(regions.boxes) / (truth.shape[1] * truth.shape[2])
    whole = mask_areas(objects, size)[regions.object]
    cut, real = probs > 0.5, truth >= 0.5
    inter = jnp.sum(cut & real, axis=(1, 2))
    inside = jnp.sum(real, axis=(1, 2))
    total = jnp.maximum(whole / jnp.maximum(cell, 1e-6), inside)
    union = jnp.sum(cut, axis=(1, 2)) + total - inter
    return inter / jnp.maximum(union, 1)


def mask_areas(objects: Objects, size: tuple[int, int]) -> Array:
    """The area [n] of each object's mask, in pixels of an input of `size` (h, w)."""
    if objects.box_masks is not None:
        cells = objects.box_masks.shape[1] * objects.box_masks.shape[2]
        filled = objects.box_masks.astype(jnp.float32).sum(axis=(1, 2))
        return filled * boxes.area(objects.boxes) / cells
    h, w = objects.masks.shape[1:]
    filled = objects.masks.astype(jnp.float32).sum(axis=(1, 2))
    return filled * ((size[0] / h) * (size[1] / w))


def fit_loss(guesses: Array, fits: Array, regions: Regions) -> tuple[Array, Array]:
    """Half the squared error [] of the guessed IoU [k c], summed, and of how many.

    Regions count whose masks do not miss their object altogether. This and the half are
    the authors' code's.
    """
    labels = jnp.minimum(regions.labels, guesses.shape[1] - 1)
    guess = jnp.take_along_axis(guesses, labels[:, None], axis=1)[:, 0]
    some = regions.positive & (fits > 0)
    return jnp.sum(jnp.where(some, (guess - fits) ** 2 / 2, 0.0)), jnp.sum(some)


def detect(
    logits: Array,
    deltas: Array,
    proposals: Proposals,
    window: Array,
    *,
    score_threshold: float,
    nms_threshold: float,
    pre_nms_top_k: int,
    max_detections: int,
) -> Detections:
    """Detections of one image: each class's box of each proposal, suppressed by class.

    Of the boxes that score more than `score_threshold`, the `pre_nms_top_k` best take
    part; the result is exact where there are no more of them.
    """
    count = logits.shape[1] - 1
    scores = jax.nn.softmax(logits)[:, :-1]
    tiled = jnp.repeat(proposals.boxes, count, axis=0)
    decoded = boxes.decode_rcnn(deltas[:, :-1].reshape(-1, 4), tiled, WEIGHTS)
    decoded = boxes.clip(decoded, window)
    sides = decoded[:, 2:] - decoded[:, :2]
    some = (scores > score_threshold) & proposals.valid[:, None]
    some = some.reshape(-1) & (sides >= MIN_SIDE).all(axis=-1)
    best, index = lax.top_k(
        jnp.where(some, scores.reshape(-1), -1.0), min(pre_nms_top_k, some.shape[0])
    )
    labels = index % count
    keep = nms.greedy(
        decoded[index], best, nms_threshold, valid=best >= 0, labels=labels
    )
    ranking = jnp.pad(
        jnp.where(keep, best, -1.0),
        (0, max(max_detections - len(index), 0)),
        constant_values=-1.0,
    )
    score, place = lax.top_k(ranking, max_detections)
    valid = score >= 0
    place = jnp.where(valid, place, 0)
    return Detections(
        boxes=jnp.where(valid[:, None], decoded[index[place]], 0.0),
        scores=jnp.where(valid, score, 0.0),
        labels=jnp.where(valid, labels[place], 0).astype(jnp.int32),
        valid=valid,
    )
