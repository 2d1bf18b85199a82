"""Boxes: areas, overlaps, conversions, clipping and regression targets.

Shape legend:

    n, m     boxes of one image
    p        priors (anchors), or proposals, and the boxes that belong to them

Boxes are xyxy float32 pixels; a box whose sides are crossed has no area. The overlaps
are pairwise, [n 4] and [m 4] -> [n m]. They are finite, with finite gradients, for
boxes without area too.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from detjax.types import Array

MAX_LOG = math.log(1000 / 16)  # a decoded side is at most 62.5 times its prior's
_TINY_SIDE = 1e-6  # pixels; keeps the logarithm of an empty side finite


def area(boxes: Float[Array, "n 4"]) -> Float[Array, "n"]:
    """Area of each box in square pixels, [n 4] -> [n]; 0 for crossed sides."""
    return _area(jnp.asarray(boxes))


def iou(a: Float[Array, "n 4"], b: Float[Array, "m 4"]) -> Float[Array, "n m"]:
    """Intersection over union of every pair, in [0, 1]; 0 where the union is empty."""
    inter, union = _overlap(*_pairs(a, b))
    return ratio(inter, union)


def iou_crowd(
    a: Float[Array, "n 4"], crowd: Float[Array, "m 4"]
) -> Float[Array, "n m"]:
    """Share of each box of `a` that lies inside each crowd region, in [0, 1].

    A crowd covers many objects, so a box inside one need not fill it.

    COCO's evaluation (Lin et al. 2014, section on crowd annotations).
    """
    a, crowd = _pairs(a, crowd)
    inter, _ = _overlap(a, crowd)
    return ratio(inter, jnp.broadcast_to(_area(a), inter.shape))


def ratio(over: jax.Array, under: jax.Array) -> jax.Array:
    """over / under, and 0, without a gradient, where `under` is not positive."""
    some = under > 0
    return jnp.where(some, over / jnp.where(some, under, 1), 0)


def giou(a: Float[Array, "n 4"], b: Float[Array, "m 4"]) -> Float[Array, "n m"]:
    """Generalised IoU of every pair, in [-1, 1].

    IoU less the share of the smallest enclosing box that neither box covers.

    Rezatofighi et al. 2019, algorithm 1.
    """
    return _giou(*_pairs(a, b))


def paired_iou(a: Float[Array, "... 4"], b: Float[Array, "... 4"]) -> Array:
    """`iou` of each box of `a` with the box of `b` at its place; shapes broadcast."""
    return ratio(*_overlap(jnp.asarray(a), jnp.asarray(b)))


def paired_giou(a: Float[Array, "n 4"], b: Float[Array, "n 4"]) -> Float[Array, "n"]:
    """`giou` of each box of `a` with the box of `b` at its place."""
    return _giou(jnp.asarray(a), jnp.asarray(b))


def diou(a: Float[Array, "n 4"], b: Float[Array, "m 4"]) -> Float[Array, "n m"]:
    """Distance IoU of every pair, in [-1, 1].

    IoU less the squared distance of the centres over the squared diagonal of the
    enclosing box.

    Zheng et al. 2020, equations 6 and 7.
    """
    a, b = _pairs(a, b)
    inter, union = _overlap(a, b)
    return ratio(inter, union) - _distance(a, b)


def ciou(a: Float[Array, "n 4"], b: Float[Array, "m 4"]) -> Float[Array, "n m"]:
    """Complete IoU of every pair: `diou` less a penalty on differing aspect ratios.

    The weight alpha of that penalty carries no gradient.

    Zheng et al. 2020, equations 8 to 11.
    """
    a, b = _pairs(a, b)
    inter, union = _overlap(a, b)
    overlap = ratio(inter, union)
    aspect = (4 / math.pi**2) * (_angle(a) - _angle(b)) ** 2
    alpha = jax.lax.stop_gradient(ratio(aspect, 1 - overlap + aspect))
    return overlap - _distance(a, b) - alpha * aspect


def xyxy_to_cxcywh(boxes: Float[Array, "... 4"]) -> Float[Array, "... 4"]:
    """Corners (x1, y1, x2, y2) -> centre and size (cx, cy, w, h)."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return jnp.concatenate([(low + high) / 2, high - low], -1)


def cxcywh_to_xyxy(boxes: Float[Array, "... 4"]) -> Float[Array, "... 4"]:
    """Centre and size (cx, cy, w, h) -> corners (x1, y1, x2, y2)."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return jnp.concatenate([centre - half, centre + half], -1)


def xyxy_to_xywh(boxes: Float[Array, "... 4"]) -> Float[Array, "... 4"]:
    """Corners (x1, y1, x2, y2) -> upper left corner and size (x1, y1, w, h)."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return jnp.concatenate([low, high - low], -1)


def xywh_to_xyxy(boxes: Float[Array, "... 4"]) -> Float[Array, "... 4"]:
    """Upper left corner and size (x1, y1, w, h) -> corners (x1, y1, x2, y2)."""
    low, size = boxes[..., :2], boxes[..., 2:]
    return jnp.concatenate([low, low + size], -1)


def clip(
    boxes: Float[Array, "... 4"], window: Float[Array, "4"]
) -> Float[Array, "... 4"]:
    """Boxes cut to a window, xyxy; `whole` is that of a full image."""
    low, high = window[:2], window[2:]
    return jnp.clip(boxes, jnp.tile(low, 2), jnp.tile(high, 2))


def mirror(boxes: Float[Array, "... 4"], width: int | float) -> Float[Array, "... 4"]:
    """Boxes in a picture of `width` pixels that is mirrored left to right."""
    x1, y1, x2, y2 = jnp.moveaxis(jnp.asarray(boxes), -1, 0)
    return jnp.stack([width - x2, y1, width - x1, y2], axis=-1)


def full_window(size: tuple[int, int]) -> Float[Array, "4"]:
    """The window that is all of an image of `size` (h, w)."""
    return jnp.array([0, 0, size[1], size[0]], jnp.float32)


def inside(boxes: Float[Array, "n 4"], window: Float[Array, "4"]) -> Bool[Array, "n"]:
    """Which boxes lie in the box `window` with all their sides."""
    boxes, window = jnp.asarray(boxes), jnp.asarray(window)
    low = (boxes[:, :2] >= window[:2]).all(axis=-1)
    return low & (boxes[:, 2:] <= window[2:]).all(axis=-1)


def window(
    affine: Float[Array, "2 3"], size: Int[Array, "2"], network_size: tuple[int, int]
) -> Float[Array, "4"]:
    """The box of a picture inside a network's input of `network_size` (h, w).

    affine: original pixel (x, y, 1) -> network pixel. size: the original's (h, w).
    """
    h, w = size[0].astype(jnp.float32), size[1].astype(jnp.float32)
    corners = jnp.stack(
        [jnp.stack([x, y, jnp.float32(1)]) for x in (0 * w, w) for y in (0 * h, h)], 1
    )
    moved = jnp.matmul(affine, corners, precision=jax.lax.Precision.HIGHEST)
    return clip(
        jnp.concatenate([moved.min(1), moved.max(1)]), full_window(network_size)
    )


def encode(
    boxes: Float[Array, "p 4"],
    priors: Float[Array, "p 4"],
    variances: Sequence[int | float] = (0.1, 0.2),
) -> Float[Array, "p 4"]:
    """Deltas (dx, dy, dw, dh) that `decode` turns back into the boxes.

    dx = (cx - cx_prior) / (w_prior * variances[0]), dw = log(w / w_prior) /
    variances[1]; sides below a millionth of a pixel count as that.

    Liu et al. 2016 (SSD), equation 2, with the variances of the authors' code.
    """
    shift, scale = _offsets(boxes, priors)
    return jnp.concatenate([shift / variances[0], scale / variances[1]], -1)


def decode(
    deltas: Float[Array, "p 4"],
    priors: Float[Array, "p 4"],
    variances: Sequence[int | float] = (0.1, 0.2),
    max_log: int | float = MAX_LOG,
) -> Float[Array, "p 4"]:
    """Boxes of deltas that were made by `encode`; xyxy pixels like the priors.

    log(w / w_prior) is cut at `max_log`, so an untrained net yields no infinite box.
    """
    scale = jnp.minimum(deltas[:, 2:] * variances[1], max_log)
    return _moved(priors, deltas[:, :2] * variances[0], scale)


def encode_rcnn(
    boxes: Float[Array, "p 4"],
    priors: Float[Array, "p 4"],
    weights: Sequence[int | float] = (1, 1, 1, 1),
) -> Float[Array, "p 4"]:
    """Deltas (dx, dy, dw, dh) that `decode_rcnn` turns back into the boxes.

    dx = weights[0] * (cx - cx_prior) / w_prior, dw = weights[2] * log(w / w_prior).

    Girshick et al. 2014 (R-CNN), appendix C.
    """
    return jnp.concatenate(_offsets(boxes, priors), -1) * jnp.asarray(
        weights, jnp.float32
    )


def decode_rcnn(
    deltas: Float[Array, "p 4"],
    priors: Float[Array, "p 4"],
    weights: Sequence[int | float] = (1, 1, 1, 1),
    max_log: int | float = MAX_LOG,
) -> Float[Array, "p 4"]:
    """Boxes of deltas that were made by `encode_rcnn`; xyxy pixels like the priors.

    log(w / w_prior) is cut at `max_log`, so an untrained net yields no infinite box.
    """
    deltas = deltas / jnp.asarray(weights, jnp.float32)
    return _moved(priors, deltas[:, :2], jnp.minimum(deltas[:, 2:], max_log))


def _pairs(a: Array, b: Array) -> tuple[jax.Array, jax.Array]:
    return jnp.asarray(a)[:, None], jnp.asarray(b)[None]


def _area(boxes: jax.Array) -> jax.Array:
    size = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return size[..., 0] * size[..., 1]


def _overlap(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    low = jnp.maximum(a[..., :2], b[..., :2])
    high = jnp.minimum(a[..., 2:], b[..., 2:])
    inter = _area(jnp.concatenate([low, high], -1))
    return inter, _area(a) + _area(b) - inter


def _giou(a: jax.Array, b: jax.Array) -> jax.Array:
    inter, union = _overlap(a, b)
    hull = _area(_hull(a, b))
    return ratio(inter, union) - ratio(hull - union, hull)


def _hull(a: jax.Array, b: jax.Array) -> jax.Array:
    low = jnp.minimum(a[..., :2], b[..., :2])
    high = jnp.maximum(a[..., 2:], b[..., 2:])
    return jnp.concatenate([low, high], -1)


def _distance(a: jax.Array, b: jax.Array) -> jax.Array:
    hull = _hull(a, b)
    apart = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2
    diagonal = hull[..., 2:] - hull[..., :2]
    return ratio((apart**2).sum(-1), (diagonal**2).sum(-1))


def _angle(boxes: jax.Array) -> jax.Array:
    """arctan(w / h); 0, without gradient, where there is neither."""
    size = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    some = (size**2).sum(-1) > 0
    w = jnp.where(some, size[..., 0], 0)
    h = jnp.where(some, size[..., 1], 1)
    return jnp.arctan2(w, h)


def _offsets(boxes: Array, priors: Array) -> tuple[jax.Array, jax.Array]:
    boxes, priors = xyxy_to_cxcywh(boxes), xyxy_to_cxcywh(priors)
    size = jnp.maximum(boxes[:, 2:], _TINY_SIDE)
    prior_size = jnp.maximum(priors[:, 2:], _TINY_SIDE)
    return (boxes[:, :2] - priors[:, :2]) / prior_size, jnp.log(size / prior_size)


def _moved(priors: Array, shift: Array, scale: Array) -> jax.Array:
    priors = xyxy_to_cxcywh(priors)
    centre = priors[:, :2] + shift * priors[:, 2:]
    size = priors[:, 2:] * jnp.exp(scale)
    return cxcywh_to_xyxy(jnp.concatenate([centre, size], -1))
