"""Detections of mirrored and resized pictures, brought back and merged.

A batch's, on the device: leading axis b.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from detjax.data.frames import opposites
from detjax.errors import UserError
from detjax.nn.batch import each_image
from detjax.ops import boxes, nms, resize, rotated
from detjax.ops.ranking import top_k
from detjax.types import Array, Detections


def mirror(
    found: Detections, size: tuple[int, int], names: tuple[str, ...]
) -> Detections:
    """`found` in a picture of `size` (h, w) as in its mirror image, left to right.

    `names` are those of keypoints: those called left_ and right_ change places. Raises
    UserError where there are keypoints and no names of them.
    """
    turned: dict[str, Array] = {"boxes": boxes.mirror(found.boxes, size[1])}
    for name in ("masks", "box_masks"):
        grids = getattr(found, name)
        if grids is not None:
            turned[name] = grids[..., ::-1]
    if found.amodal is not None:
        turned["amodal"] = boxes.mirror(found.amodal, size[1])
    if found.oriented is not None:
        turned["oriented"] = rotated.mirror(found.oriented, size[1])
    points = found.keypoints
    if points is not None:
        if points.shape[-2] != len(names):
            raise UserError(
                f"eval.flip=True changes left and right, and of the {points.shape[-2]} "
                f"keypoints that the model answers {len(names)} names are known; set "
                "eval.flip=False, or take a data set and a run that have them all"
            )
        points = points[..., np.array(opposites(names)), :]
        x = size[1] - points[..., :1]
        turned["keypoints"] = jnp.concatenate([x, points[..., 1:]], axis=-1)
    return dataclasses.replace(found, **turned)


def rescale(found: Detections, scale: tuple[float, float]) -> Detections:
    """`found` in a picture that is `scale` (y, x) times as large.

    Masks stay on their grids, which span it as they did.
    """
    sy, sx = scale
    factors = jnp.array([sx, sy, sx, sy], jnp.float32)
    points = found.keypoints
    if points is not None:
        points = points * jnp.array([sx, sy, 1], jnp.float32)
    whole, turned = found.amodal, found.oriented
    return dataclasses.replace(
        found,
        boxes=found.boxes * factors,
        keypoints=points,
        amodal=None if whole is None else whole * factors,
        oriented=None if turned is None else rotated.rescale(turned, scale),
    )


def merge(answers: Sequence[Detections], iou: float) -> Detections:
    """As many of several lists of detections as the first has, by falling score.

    Of those of one class whose boxes, at their angle if they have one, overlap by more
    than `iou` the best stays, with its mask and keypoints. Its box becomes the mean of
    all of these, weighted by their scores (Gidaris and Komodakis 2015, sec. 4.2, box
    voting), its score the mean of the best of them in each list, 0 where there is none
    (after Solovyev et al. 2021, weighted boxes fusion). Masks of the whole input come
    on the finest grid.
    """
    count = answers[0].valid.shape[1]
    if answers[0].masks is not None:
        h, w = max((a.masks.shape[-2:] for a in answers), key=np.prod)
        answers = [dataclasses.replace(a, masks=_on(a.masks, (h, w))) for a in answers]
    joined = jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *answers)
    one = functools.partial(_merged, iou=iou, lists=len(answers), count=count)
    return each_image(one)(joined)


def _merged(found: Detections, *, iou: float, lists: int, count: int) -> Detections:
    """The best `count` of the detections [n] of one image, one list after the other."""
    listed = found.scores, iou, found.valid, found.labels
    if found.oriented is None:
        keep = nms.greedy(found.boxes, *listed)
        overlap = boxes.iou(found.boxes, found.boxes)
    else:
        # Upright boxes of what lies side by side at an angle overlap.
        keep = rotated.nms(found.oriented, *listed)
        overlap = rotated.iou(found.oriented, found.oriented)
    same = found.labels[:, None] == found.labels
    near = (overlap > iou) & same & found.valid
    # A box without an area overlaps nothing, itself included.
    near |= jnp.eye(len(keep), dtype=bool)
    shares = jnp.where(near & found.valid, found.scores, 0.0)
    total = jnp.maximum(shares.sum(axis=1, keepdims=True), 1e-9)
    exact = lax.Precision.HIGHEST
    voted = jnp.matmul(shares / total, found.boxes, precision=exact)
    scores = shares.reshape(len(keep), lists, -1).max(axis=2).mean(axis=1)
    best, place = top_k(jnp.where(keep, scores, -jnp.inf), count)
    valid = best > -jnp.inf
    chosen = jax.tree.map(lambda x: x[place], found)
    changed: dict[str, Array] = {
        "boxes": jnp.where(valid[:, None], voted[place], 0.0),
        "scores": jnp.where(valid, best, 0.0),
        "valid": valid,
    }
    if found.mask_scores is not None:
        ratio = changed["scores"] / jnp.maximum(chosen.scores, 1e-9)
        changed["mask_scores"] = chosen.mask_scores * ratio
    if found.box_masks is not None:
        moved = jax.vmap(_in_box)(chosen.box_masks, chosen.boxes, changed["boxes"])
        changed["box_masks"] = moved
    return dataclasses.replace(chosen, **changed)


def _in_box(mask: Array, box: Array, other: Array) -> Array:
    """A mask [r r] that spans `box`, on a grid that spans the `other`.

    Bilinear between the centres of its cells; nothing beyond its box.
    """
    r = len(mask)
    at = (jnp.arange(r) + 0.5) / r
    side = jnp.maximum(box[2:] - box[:2], 1e-6)[:, None]
    places = other[:2, None] + at * (other[2:] - other[:2])[:, None]
    cells = (places - box[:2, None]) / side * r - 0.5  # [2 r]: x and y
    inside = (cells >= -0.5) & (cells <= r - 0.5)
    apart = jnp.abs(jnp.clip(cells, 0, r - 1)[..., None] - jnp.arange(r))
    x, y = jnp.where(inside[..., None], jnp.maximum(1 - apart, 0), 0.0)
    return jnp.einsum("ir,rc,jc->ij", y, mask, x, precision=lax.Precision.HIGHEST)


def _on(masks: Array, grid: tuple[int, int]) -> Array:
    """Masks [b n mh mw] on another grid (h, w)."""
    if masks.shape[-2:] == grid:
        return masks
    flat = masks.reshape(-1, *masks.shape[-2:], 1)
    found = jax.vmap(resize.bilinear, (0, None))(flat, grid)
    return found.reshape(*masks.shape[:2], *grid)
