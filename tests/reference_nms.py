"""The family of suppression, written from the papers with loops and lists.

Boxes are taken one at a time from lists; nothing is sorted ahead, shared or padded.
"""

import numpy as np
from numpy import float32 as f32

from tests.reference import iou_row


def diou_row(box, others):
    """IoU less distance^2 / diagonal^2, of one box and others."""
    low = np.minimum(box[:2], others[:, :2])
    high = np.maximum(box[2:], others[:, 2:])
    apart = (box[:2] + box[2:] - others[:, :2] - others[:, 2:]) / f32(2)
    diagonal = ((high - low) ** 2).sum(1)
    share = (apart**2).sum(1) / np.where(diagonal > 0, diagonal, 1)
    return iou_row(box, others) - np.where(diagonal > 0, share, 0)


def greedy(boxes, scores, labels, threshold, overlap=iou_row):
    """{index: score} of the boxes that stay."""
    waiting, kept = np.arange(len(boxes)), {}
    while len(waiting):
        best = max(waiting, key=lambda i: (scores[i], -i))
        kept[best] = scores[best]
        near = overlap(boxes[best], boxes[waiting]) > f32(threshold)
        near &= labels[waiting] == labels[best]
        waiting = waiting[~near & (waiting != best)]
    return kept


def fast(boxes, scores, labels, threshold):
    kept = {}
    for j in range(len(boxes)):
        first = np.arange(len(boxes)) < j
        better = (scores > scores[j]) | ((scores == scores[j]) & first)
        better &= labels == labels[j]
        if not (iou_row(boxes[j], boxes[better]) > f32(threshold)).any():
            kept[j] = scores[j]
    return kept


def soft(boxes, scores, labels, threshold, sigma, low, decay):
    """Bodla et al. 2017, figure 2, class by class."""
    kept = {}
    for label in set(labels.tolist()):
        left = {i: scores[i] for i in range(len(boxes)) if labels[i] == label}
        while left:
            best = max(left, key=lambda i: (left[i], -i))
            score = left.pop(best)
            if score > f32(low):
                kept[best] = score
            rest = list(left)
            for i, iou in zip(rest, iou_row(boxes[best], boxes[rest]), strict=True):
                if decay == "gaussian":
                    left[i] = left[i] * np.exp(-(iou**2) / f32(sigma))
                elif iou > f32(threshold):
                    left[i] = left[i] * (f32(1) - iou)
    return kept


def matrix(boxes, scores, labels, sigma, low, decay):
    """Wang et al. 2020, equation 5, class by class."""

    def f(u):
        return np.exp(-(u**2) / sigma) if decay == "gaussian" else 1 - u

    kept = {}
    for label in set(labels.tolist()):
        own = [i for i in range(len(boxes)) if labels[i] == label]
        order = sorted(own, key=lambda i: (-scores[i], i))
        highest = []
        for rank, j in enumerate(order):
            better = iou_row(boxes[j], boxes[order[:rank]]).astype(float)
            factor = 1.0
            for u, m in zip(better, highest, strict=True):
                if f(m) > 0:
                    factor = min(factor, f(u) / f(m))
            if scores[j] * factor > low:
                kept[j] = scores[j] * factor
            highest.append(better.max() if rank else 0.0)
    return kept


def fusion(boxes, scores, labels, threshold, sources=1):
    """Solovyev et al. 2021, section 3: {index of the first: (score, mean box)}."""
    clusters, means = [], []  # lists of indices, and their boxes
    for i in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        same = [k for k, c in enumerate(clusters) if labels[c[0]] == labels[i]]
        over = iou_row(boxes[i], np.array([means[k] for k in same]).reshape(-1, 4))
        if len(same) and over.max() > f32(threshold):
            k = same[int(over.argmax())]
            clusters[k].append(i)
            means[k] = mean(boxes[clusters[k]], scores[clusters[k]])
        else:
            clusters.append([i])
            means.append(boxes[i])
    return {
        c[0]: (
            scores[c].mean() * min(len(c), sources) / sources,
            mean(boxes[c], scores[c]),
        )
        for c in clusters
    }


def mean(boxes, scores):
    if not scores.sum():
        return boxes[0]
    return (boxes * scores[:, None]).sum(0) / scores.sum()


def suppress(boxes, scores, labels, valid, nms, threshold, sigma, low, most):
    """[(index, score, box)], the best first."""
    index = np.flatnonzero(valid & np.isfinite(boxes).all(1) & np.isfinite(scores))
    b, s, c = boxes[index], scores[index], labels[index]
    decay = "linear" if nms.endswith("linear") else "gaussian"
    if nms == "wbf":
        kept = {i: v for i, v in fusion(b, s, c, threshold).items() if v[0] > low}
        found = [(index[i], score, box) for i, (score, box) in kept.items()]
    else:
        kept = {
            "greedy": lambda: greedy(b, s, c, threshold),
            "greedy_agnostic": lambda: greedy(b, s, 0 * c, threshold),
            "diou": lambda: greedy(b, s, c, threshold, diou_row),
            "fast": lambda: fast(b, s, c, threshold),
            "soft": lambda: soft(b, s, c, threshold, sigma, low, decay),
            "matrix": lambda: matrix(b, s, c, sigma, low, decay),
        }[nms.removesuffix("_linear")]()
        found = [(index[i], score, boxes[index[i]]) for i, score in kept.items()]
    return sorted(found, key=lambda x: (-x[1], x[0]))[:most]
