"""The COCO recipe's input pipeline as it is often written: PIL, threads, numpy.

A peer for scripts/bench.py: SSD's augmentation, one step after another on whole
pictures, masks included.
"""

import io
import random
from concurrent import futures

import numpy as np
from PIL import Image, ImageEnhance
from pycocotools import mask as coco_mask

from detjax.data import augment, frames

FILL = (124, 117, 104)


def colours(image):
    """Brightness, contrast, saturation and hue, half the time each."""

    def contrast(image):
        by = random.uniform(0.5, 1.5)
        return image.point(lambda v: v * by)

    change_contrast, early = random.random() < 0.5, random.random() < 0.5
    if random.random() < 0.5:
        delta = random.uniform(-32, 32)
        image = image.point(lambda v: v + delta)
    if change_contrast and early:
        image = contrast(image)
    if random.random() < 0.5:
        image = ImageEnhance.Color(image).enhance(random.uniform(0.5, 1.5))
    if random.random() < 0.5:
        delta = random.uniform(-18, 18) * 256 / 360
        hue, saturation, value = image.convert("HSV").split()
        hue = hue.point(lambda v: (v + delta) % 256)
        image = Image.merge("HSV", (hue, saturation, value)).convert("RGB")
    return contrast(image) if change_contrast and not early else image


def expand(image, masks, boxes):
    """The picture somewhere on a grey canvas of up to four times its sides."""
    w, h = image.size
    ratio = random.uniform(1, 4)
    size = int(w * ratio), int(h * ratio)
    x, y = random.randint(0, size[0] - w), random.randint(0, size[1] - h)
    canvas = Image.new("RGB", size, FILL)
    canvas.paste(image, (x, y))
    moved = []
    for mask in masks:
        moved.append(Image.new("L", size))
        moved[-1].paste(mask, (x, y))
    return canvas, moved, boxes + np.array([x, y, x, y])


def crop(rng, image, masks, boxes, labels):
    """A window that meets an object, with the objects whose centre is in it."""
    w, h = image.size
    frame = augment.iou_crop(rng, frames.Frame(np.eye(3), (h, w)), boxes)
    x, y = -frame.matrix[:2, 2]
    x1, y1 = int(x), int(y)
    x2, y2 = int(x + frame.size[1]), int(y + frame.size[0])
    window = np.array([x1, y1, x2, y2])
    keep = np.flatnonzero(frames.centred(boxes, window))
    boxes = np.clip(boxes[keep], window[[0, 1, 0, 1]], window[[2, 3, 2, 3]])
    return (
        image.crop((x1, y1, x2, y2)),
        [masks[i].crop((x1, y1, x2, y2)) for i in keep],
        boxes - window[[0, 1, 0, 1]],
        labels[keep],
    )


def example(rng, record, size, max_objects, stride):
    """One record's image, boxes, labels and masks, padded."""
    image = Image.open(io.BytesIO(record.image)).convert("RGB")
    shape = [record.height, record.width]
    boxes = np.array([a.box for a in record.truth], np.float64).reshape(-1, 4)
    labels = np.array([a.label for a in record.truth], np.int32)
    masks = [
        Image.fromarray(255 * coco_mask.decode({"size": shape, "counts": a.rle}))
        for a in record.truth
    ]
    image = colours(image)
    if random.random() < 0.5:
        image, masks, boxes = expand(image, masks, boxes)
    image, masks, boxes, labels = crop(rng, image, masks, boxes, labels)
    w, h = image.size
    if random.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        masks = [m.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for m in masks]
        boxes = np.stack(
            [w - boxes[:, 2], boxes[:, 1], w - boxes[:, 0], boxes[:, 3]], axis=1
        )
    image = image.resize(size[::-1], Image.Resampling.BILINEAR)
    boxes = boxes * (np.array(size * 2)[[1, 0, 1, 0]] / [w, h, w, h])
    grid = [-(-side // stride) for side in size]
    n = min(len(boxes), max_objects)
    drawn = np.zeros((max_objects, *grid), np.uint8)
    for i, mask in enumerate(masks[:n]):
        small = mask.resize(grid[::-1], Image.Resampling.BILINEAR)
        drawn[i] = np.asarray(small) > 127
    padded = np.zeros((max_objects, 4), np.float32)
    padded[:n] = boxes[:n]
    classes = np.zeros(max_objects, np.int32)
    classes[:n] = labels[:n]
    return np.asarray(image), padded, classes, np.arange(max_objects) < n, drawn


def stream(records, size, max_objects, stride, *, batch_size, threads):
    """Batches without end, from a pool of threads that is kept busy."""

    def batch(number):
        rng = np.random.default_rng(number)
        chosen = rng.integers(len(records), size=batch_size)
        rows = [example(rng, records[i], size, max_objects, stride) for i in chosen]
        return [np.stack(column) for column in zip(*rows, strict=True)]

    with futures.ThreadPoolExecutor(threads) as pool:
        waiting = [pool.submit(batch, number) for number in range(2 * threads)]
        number = len(waiting)
        while True:
            done = waiting.pop(0).result()
            waiting.append(pool.submit(batch, number))
            number += 1
            yield done
