"""Slow oracles in numpy, written from the definitions, one loop at a time."""

import math

import numpy as np
from pycocotools import mask as coco

f32 = np.float32


def rle(mask):
    """COCO's encoding of a binary mask [h w], by pycocotools, its counts as text."""
    found = coco.encode(np.asfortranarray(mask != 0, np.uint8))
    return {"size": list(found["size"]), "counts": found["counts"].decode("ascii")}


def area(box):
    return max(f32(box[2] - box[0]), f32(0)) * max(f32(box[3] - box[1]), f32(0))


def intersection(a, b):
    return area(
        [max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])],
    )


def iou(a, b):
    """Intersection over union of every pair, float32."""
    out = np.zeros((len(a), len(b)), f32)
    for i, one in enumerate(a):
        for j, other in enumerate(b):
            inter = intersection(one, other)
            union = area(one) + area(other) - inter
            out[i, j] = inter / union if union > 0 else 0
    return out


def iou_row(box, boxes):
    """One row of `iou`, vectorised so that hundreds of boxes stay affordable."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    inter = np.prod(np.maximum(high - low, 0), 1, dtype=f32)
    sizes = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), 1, dtype=f32)
    union = area(box) + sizes - inter
    return np.where(union > 0, inter / np.where(union > 0, union, 1), f32(0))


def variants(a, b):
    """(giou, diou, ciou) of one pair with area, in double precision."""
    a, b = [float(v) for v in a], [float(v) for v in b]
    wa, ha, wb, hb = a[2] - a[0], a[3] - a[1], b[2] - b[0], b[3] - b[1]
    inter_w = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    inter_h = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    inter = inter_w * inter_h
    union = wa * ha + wb * hb - inter
    hull_w, hull_h = (
        max(a[2], b[2]) - min(a[0], b[0]),
        max(a[3], b[3]) - min(a[1], b[1]),
    )
    overlap = inter / union
    giou = overlap - (hull_w * hull_h - union) / (hull_w * hull_h)
    dx = (a[0] + a[2]) / 2 - (b[0] + b[2]) / 2
    dy = (a[1] + a[3]) / 2 - (b[1] + b[3]) / 2
    diou = overlap - (dx**2 + dy**2) / (hull_w**2 + hull_h**2)
    v = 4 / math.pi**2 * (math.atan(wb / hb) - math.atan(wa / ha)) ** 2
    alpha = v / (1 - overlap + v) if v else 0
    return giou, diou, diou - alpha * v


def greedy_nms(boxes, scores, threshold, valid=None, labels=None):
    n = len(boxes)
    valid = np.ones(n, bool) if valid is None else valid
    labels = np.zeros(n, int) if labels is None else labels
    waiting = sorted(np.flatnonzero(valid), key=lambda i: (-scores[i], i))
    waiting = np.array(waiting, int)
    keep = np.zeros(n, bool)
    while len(waiting):
        best, waiting = waiting[0], waiting[1:]
        keep[best] = True
        over = iou_row(boxes[best], boxes[waiting]) > f32(threshold)
        waiting = waiting[~(over & (labels[waiting] == labels[best]))]
    return keep


def fast_nms(
    boxes, scores, threshold, top_k, max_detections, score_threshold, valid=None
):
    """List of (index, label, score), best first."""
    num_classes, n = scores.shape
    valid = np.ones(n, bool) if valid is None else valid
    candidates = [
        i for i in range(n) if valid[i] and max(scores[:, i]) > score_threshold
    ]
    found = []
    for label in range(num_classes):
        best = sorted(candidates, key=lambda i: (-scores[label, i], i))[:top_k]
        for rank, j in enumerate(best):
            overlaps = iou_row(boxes[j], boxes[best[:rank]])
            if all(overlaps <= f32(threshold)):
                found.append((-scores[label, j], label, rank, j))
    return [(j, label, -score) for score, label, _, j in sorted(found)[:max_detections]]


def bipartite(iou, valid):
    """Dict from object to prior: the best pair left, again and again."""
    pairs = [
        (-iou[i, j], i, j)
        for i in range(iou.shape[0])
        if valid[i]
        for j in range(iou.shape[1])
    ]
    taken = {}
    for _, i, j in sorted(pairs):
        if i not in taken and j not in taken.values():
            taken[i] = j
    return taken


def match(
    iou,
    valid,
    positive,
    negative,
    force=True,
    crowd_iou=None,
    crowd_valid=None,
    crowd_threshold=0.7,
    low_quality=False,
):
    """(index, state) of each prior; state 1 positive, 0 negative, -1 neutral."""
    m, p = iou.shape
    objects = [i for i in range(m) if valid[i]]
    owner = {j: i for i, j in bipartite(iou, valid).items()} if force else {}
    index, state = np.zeros(p, int), np.zeros(p, int)
    for j in range(p):
        if objects:
            index[j] = min(objects, key=lambda i: (-iou[i, j], i))
            best = iou[index[j], j]
            state[j] = 1 if best >= f32(positive) else 0 if best < f32(negative) else -1
        if low_quality and any(iou[i, j] == iou[i].max() for i in objects):
            state[j] = 1
        if j in owner:
            index[j], state[j] = owner[j], 1
        for k in range(0 if crowd_iou is None else len(crowd_iou)):
            inside = crowd_valid[k] and crowd_iou[k, j] > f32(crowd_threshold)
            if inside and state[j] != 1:
                state[j] = -1
    return index, state


def hard_negatives(loss, positive, negative, ratio):
    p = len(loss)
    ranked = sorted(range(p), key=lambda i: (-(loss[i] if negative[i] else 0), i))
    count = min(int(ratio * sum(positive)), p - 1)
    return np.array([negative[i] and i in ranked[:count] for i in range(p)], bool)


def bilinear(x, size):
    h, w, c = x.shape
    out = np.zeros((*size, c))
    for i in range(size[0]):
        for j in range(size[1]):
            y = min(max((i + 0.5) * h / size[0] - 0.5, 0), h - 1)
            z = min(max((j + 0.5) * w / size[1] - 0.5, 0), w - 1)
            for row in {math.floor(y), math.ceil(y)}:
                for column in {math.floor(z), math.ceil(z)}:
                    weight = (1 - abs(y - row)) * (1 - abs(z - column))
                    out[i, j] += weight * x[row, column]
    return out


def crop(masks, boxes, size, padding=1):
    n, mh, mw = masks.shape
    out = np.zeros_like(masks)
    for k in range(n):
        x1, y1, x2, y2 = (
            f32(v) / f32(length) * f32(cells)
            for v, length, cells in zip(
                boxes[k], size[::-1] * 2, (mw, mh) * 2, strict=True
            )
        )
        left, right = max(min(x1, x2) - padding, 0), min(max(x1, x2) + padding, mw)
        top, bottom = max(min(y1, y2) - padding, 0), min(max(y1, y2) + padding, mh)
        for i in range(mh):
            for j in range(mw):
                if left <= j < right and top <= i < bottom:
                    out[k, i, j] = masks[k, i, j]
    return out


def grid_anchors(feature_shapes, image_size, sizes, ratios, square=False):
    out = []
    for (h, w), level in zip(feature_shapes, sizes, strict=True):
        for i in range(h):
            for j in range(w):
                cy, cx = (i + 0.5) / h * image_size[0], (j + 0.5) / w * image_size[1]
                for size in level:
                    for ratio in ratios:
                        aw, ah = size * math.sqrt(ratio), size / math.sqrt(ratio)
                        ah = aw if square else ah
                        out.append([cx - aw / 2, cy - ah / 2, cx + aw / 2, cy + ah / 2])
    return np.array(out, f32)


def rcnn_anchors(feature_shapes, strides, sizes, ratios):
    out = []
    for (h, w), stride, level in zip(feature_shapes, strides, sizes, strict=True):
        for i in range(h):
            for j in range(w):
                for ratio in ratios:
                    for size in level:
                        x = round(size / math.sqrt(ratio) / 2)
                        y = round(size * math.sqrt(ratio) / 2)
                        cx, cy = j * stride, i * stride
                        out.append([cx - x, cy - y, cx + x, cy + y])
    return np.array(out, f32)


def warp(mask, affine, size, network_size):
    """Probability at each original pixel's centre, read bilinearly from a mask grid."""
    mh, mw = mask.shape
    out = np.zeros(size)
    for i in range(size[0]):
        for j in range(size[1]):
            x, y = affine @ [j + 0.5, i + 0.5, 1]
            u = min(max(x * mw / network_size[1] - 0.5, 0), mw - 1)
            v = min(max(y * mh / network_size[0] - 0.5, 0), mh - 1)
            for row in {math.floor(v), math.ceil(v)}:
                for column in {math.floor(u), math.ceil(u)}:
                    weight = (1 - abs(v - row)) * (1 - abs(u - column))
                    out[i, j] += weight * mask[row, column]
    return out
