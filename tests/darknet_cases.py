"""Heads of darknet on the cases that `reference_darknet` draws."""

import jax
import jax.numpy as jnp
import numpy as np

from detjax.types import Objects

ROWS = 12  # of padded objects
SCALES = (1.0, 5.0, 0.7, 1.3)  # coordinates, objects, background, classes
NAMES = ("coordinates", "objects", "background", "classes_scale")


def objects(case, size, *, labelled=False):
    """The objects of a case, padded with what nobody may read.

    labelled: only the last one, of which only the class is known. Darknet passes over
        the others then.
    """
    h, w = size
    n = len(case.labels)
    boxes = np.full((ROWS, 4), 7.0, np.float32)
    low, high = (case.truths[:, :2] + s * case.truths[:, 2:] / 2 for s in (-1, 1))
    boxes[:n] = np.concatenate([low, high], axis=1) * [w, h, w, h]
    labels, crowd = np.zeros(ROWS, np.int32), np.zeros(ROWS, bool)
    labels[:n] = case.labels
    valid = np.arange(ROWS) < n
    if labelled:
        boxes[n - 1], crowd[n - 1] = [0, 0, w, h], True
        valid[: n - 1] = False
    return Objects(boxes, labels, valid, crowd)


def deltas(head, raw, known, size, *more):
    """Minus the gradient of a head's loss by `raw`."""
    known = jax.tree.map(jnp.asarray, known)

    @jax.jit
    @jax.grad
    def gradient(raw):
        sums = head.losses(raw, known, size, *more)
        return sums.box + sums.objectness + sums.classes

    return -np.asarray(gradient(jnp.asarray(raw)))


def size_of(case):
    """The input (h, w) of a case, 32 pixels a cell."""
    return tuple(32 * side for side in case.raw.shape[2:])


def of_map(head, case, known, *more):
    """`deltas` of a map, [anchors 5+c h w] as darknet has them."""
    a, width, h, w = case.raw.shape
    raw = case.raw.transpose(2, 3, 0, 1).reshape(h, w, a * width)
    found = deltas(head, raw, known, size_of(case), *more)
    return found.reshape(h, w, a, width).transpose(2, 3, 0, 1)
