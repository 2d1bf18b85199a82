"""Slow oracles of darknet's heads in numpy: deltas, one place after the other.

A delta is minus the gradient by what the layer before the head puts out. Written from
what yolo_layer.c, region_layer.c and detection_layer.c of pjreddie/darknet at f6afaabc
do. `drawn` makes the cases that these are compared on.
"""

from typing import NamedTuple

import numpy as np


class Case(NamedTuple):
    """A head's input and the objects of its image."""

    raw: np.ndarray  # [anchors 5+classes h w], logits
    truths: np.ndarray  # [t 4] centre x, y, width, height in shares of the input
    labels: np.ndarray  # [t]
    anchors: np.ndarray  # [all 2] (w, h)
    mask: np.ndarray  # the anchors of this head


def drawn(seed, *, anchors=3, total=None, unit=32.0, crowded=False):
    """A case; the predictions of some places lie near an object.

    unit: pixels of an anchor's unit, 32 for cells. crowded: some objects share a place.
    """
    rng = np.random.default_rng(seed)
    w, h, classes = (int(rng.integers(*span)) for span in ((3, 6), (3, 6), (2, 5)))
    total = total or anchors
    sides = (rng.uniform(0.3, 3, (total, 2)) * 32 / unit).astype("f")
    mask = np.sort(rng.choice(total, anchors, replace=False))
    count = int(rng.integers(4, 9))
    truths = rng.uniform(0.05, 0.6, (count, 4))
    truths[:, :2] = rng.uniform(0.31, 0.69, (count, 2))
    if crowded:
        truths[1:3, :2] = truths[0, :2]
        truths[2, 2:] = truths[0, 2:]
    raw = rng.normal(0, 0.6, (anchors, 5 + classes, h, w))
    for k, (x, y, tw, th) in enumerate(truths):
        i, j, a = int(x * w), int(y * h), k % anchors
        fx, fy = np.clip((x * w - i, y * h - j), 0.02, 0.98)
        aw, ah = sides[mask[a]] / 32 * unit
        raw[a, :4, j, i] = (
            *(np.log(f / (1 - f)) for f in (fx, fy)),
            np.log(tw * w / aw) + 0.05 * rng.normal(),
            np.log(th * h / ah) + 0.05 * rng.normal(),
        )
    labels = rng.integers(0, classes, count)
    return Case(raw.astype("f"), truths.astype("f"), labels, sides, mask)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def iou(a, b):
    """Of two boxes (centre x, y, width, height)."""
    common = 1.0
    for k in (0, 1):
        low = max(a[k] - a[k + 2] / 2, b[k] - b[k + 2] / 2)
        high = min(a[k] + a[k + 2] / 2, b[k] + b[k + 2] / 2)
        if high <= low:
            return 0.0
        common *= high - low
    return common / (a[2] * a[3] + b[2] * b[3] - common)


def best(overlaps):
    """The highest of some, and the first place where it is; 0 and 0 of nothing else."""
    at = int(np.argmax(overlaps)) if len(overlaps) else 0
    return (overlaps[at], at) if len(overlaps) and overlaps[at] > 0 else (0.0, 0)


def towards(truth, output, anchor, cell, grid, unit):
    """How far x, y, w, h of a place are from a truth; `unit` (w, h) of all anchors."""
    i, j = cell
    return np.array(
        [
            truth[0] * grid[0] - i - output[0],
            truth[1] * grid[1] - j - output[1],
            np.log(truth[2] * unit[0] / anchor[0]) - output[2],
            np.log(truth[3] * unit[1] / anchor[1]) - output[3],
        ]
    )


def box_of(output, anchor, cell, grid, unit):
    return (
        (cell[0] + output[0]) / grid[0],
        (cell[1] + output[1]) / grid[1],
        np.exp(output[2]) * anchor[0] / unit[0],
        np.exp(output[3]) * anchor[1] / unit[1],
    )


def toward_label(delta, output, label, scale=1.0, kept=True):
    """Sets the deltas of classes; those of a place that has some keep the others'."""
    if kept and delta[0]:
        delta[label] = scale * (1 - output[label])
        return
    delta[:] = scale * ((np.arange(len(delta)) == label) - output)


def yolo(case, *, ignore, truth):
    """The deltas of a [yolo] head, in an input of 32 pixels a cell."""
    raw, (h, w) = case.raw.astype(float), case.raw.shape[2:]
    out = sigmoid(raw)
    out[:, 2:4] = raw[:, 2:4]
    delta, pixels = np.zeros_like(raw), (32 * w, 32 * h)
    for a, j, i in np.ndindex(len(raw), h, w):
        anchor, here = case.anchors[case.mask[a]], out[a, :, j, i]
        box = box_of(here, anchor, (i, j), (w, h), pixels)
        most, t = best([iou(box, other) for other in case.truths])
        delta[a, 4, j, i] = 0 if most > ignore else -here[4]
        if most > truth:
            delta[a, 4, j, i] = 1 - here[4]
            toward_label(delta[a, 5:, j, i], here[5:], case.labels[t])
            goal = case.truths[t]
            far = towards(goal, here, anchor, (i, j), (w, h), pixels)
            delta[a, :4, j, i] = (2 - goal[2] * goal[3]) * far
    for goal, label in zip(case.truths, case.labels, strict=True):
        i, j = int(goal[0] * w), int(goal[1] * h)
        shapes = [(0, 0, *(anchor / pixels)) for anchor in case.anchors]
        _, n = best([iou(shape, (0, 0, *goal[2:])) for shape in shapes])
        if n not in case.mask:
            continue
        a = [*case.mask].index(n)
        here = out[a, :, j, i]
        far = towards(goal, here, case.anchors[n], (i, j), (w, h), pixels)
        delta[a, :4, j, i] = (2 - goal[2] * goal[3]) * far
        delta[a, 4, j, i] = 1 - here[4]
        toward_label(delta[a, 5:, j, i], here[5:], label)
    return delta


def region(case, *, seen, bias_match, rescore, softmax, ignore, scales):
    """The deltas of a [region] head; scales: coordinates, objects, none, classes."""
    coordinates, objects, background, classes = scales
    raw, (h, w) = case.raw.astype(float), case.raw.shape[2:]
    out = sigmoid(raw)
    out[:, 2:4] = raw[:, 2:4]
    if softmax:
        out[:, 5:] = np.exp(raw[:, 5:]) / np.exp(raw[:, 5:]).sum(1, keepdims=True)
    delta = np.zeros_like(raw)
    for a, j, i in np.ndindex(len(raw), h, w):
        anchor, here = case.anchors[a], out[a, :, j, i]
        box = box_of(here, anchor, (i, j), (w, h), (w, h))
        most, _ = best([iou(box, other) for other in case.truths])
        delta[a, 4, j, i] = 0 if most > ignore else -background * here[4]
        if seen < 12800:
            middle = ((i + 0.5) / w, (j + 0.5) / h, *(anchor / (w, h)))
            far = towards(middle, here, anchor, (i, j), (w, h), (w, h))
            delta[a, :4, j, i] = 0.01 * far
    for goal, label in zip(case.truths, case.labels, strict=True):
        i, j = int(goal[0] * w), int(goal[1] * h)
        overlaps = []
        for a, anchor in enumerate(case.anchors):
            box = box_of(out[a, :, j, i], anchor, (i, j), (w, h), (w, h))
            shape = anchor / (w, h) if bias_match else box[2:]
            overlaps.append(iou((0, 0, *shape), (0, 0, *goal[2:])))
        _, a = best(overlaps)
        here, anchor = out[a, :, j, i], case.anchors[a]
        far = towards(goal, here, anchor, (i, j), (w, h), (w, h))
        delta[a, :4, j, i] = coordinates * (2 - goal[2] * goal[3]) * far
        box = box_of(here, anchor, (i, j), (w, h), (w, h))
        aim = iou(box, goal) if rescore else 1
        delta[a, 4, j, i] = objects * (aim - here[4])
        toward_label(delta[a, 5:, j, i], here[5:], label, classes, not softmax)
    return delta


def detection(raw, case, *, side, count, classes, rescore, root, scales):
    """The deltas of a [detection] head, of raw [side*side*(classes + 5 count)]."""
    coordinates, objects, background, by_class = scales
    cells = side * side
    raw, delta = raw.astype(float), np.zeros(len(raw))
    confidence, first = cells * classes, cells * (classes + count)
    taken = set()
    for place in range(cells * count):
        delta[confidence + place] = -background * raw[confidence + place]
    for goal, label in zip(case.truths, case.labels, strict=True):
        i, j = int(goal[0] * side), int(goal[1] * side)
        cell = j * side + i
        if cell in taken:
            continue
        taken.add(cell)
        at = slice(cell * classes, (cell + 1) * classes)
        delta[at] = by_class * ((np.arange(classes) == label) - raw[at])
        own = (goal[0] - i / side, goal[1] - j / side, goal[2], goal[3])
        overlaps, apart = [], []
        for a in range(count):
            x, y, w, h = raw[first + 4 * (cell * count + a) :][:4]
            w, h = (w * w, h * h) if root else (w, h)
            box = (x / side, y / side, w, h)
            overlaps.append(iou(box, own))
            apart.append(sum((p - q) ** 2 for p, q in zip(box, own, strict=True)))
        most, a = best(overlaps)
        a = a if most > 0 else int(np.argmin(apart))
        at = confidence + cell * count + a
        delta[at] = objects * ((overlaps[a] if rescore else 1) - raw[at])
        at = slice(first + 4 * (cell * count + a), first + 4 * (cell * count + a + 1))
        sides = np.sqrt(goal[2:]) if root else goal[2:]
        centre = goal[0] * side - i, goal[1] * side - j
        delta[at] = coordinates * (np.array([*centre, *sides]) - raw[at])
    return delta
