"""Certificates of two-stage detectors, by goldens of torchvision's.

torchvision's own way with images is reproduced here and nowhere else: each is resized
to a shape of its own, and a batch is padded to a multiple of 32.
"""

import functools
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen

from detjax import goldens, models
from detjax.goldens import known_error, summary_error
from detjax.nn.images import NORMALIZED, STATISTICS
from detjax.ops import paste, patches, resize
from detjax.parity import Certificate, training
from detjax.types import Batch, Model, Objects
from detjax.weights import convert

# Our names of the models behind torchvision's.
GOLDENS = {
    "fasterrcnn_resnet50_fpn": "faster_rcnn_r50_fpn",
    "fasterrcnn_resnet50_fpn_v2": "faster_rcnn_r50_fpn_v2",
    "maskrcnn_resnet50_fpn": "mask_rcnn_r50_fpn",
    "maskrcnn_resnet50_fpn_v2": "mask_rcnn_r50_fpn_v2",
    "keypointrcnn_resnet50_fpn": "keypoint_rcnn_r50_fpn",
}
# In a golden's training the samplers take every candidate.
ALL = 1_000_000
# The original's weights here are random, its norms plain ones.
SETTINGS: dict[str, Any] = {"norm": "frozen", "norm_eps": 1e-5, "pre_nms_top_k": ALL}


class Padded(NamedTuple):
    """A batch as torchvision makes it."""

    images: np.ndarray  # [b h w 3] float32, normalised
    windows: np.ndarray  # [b 4] float32
    affine: np.ndarray  # [b 2 3] float32
    sizes: np.ndarray  # [b 2] int32: the originals'
    shapes: list[tuple[int, int]]  # (h, w) in the batch


def settings_of(facts: dict[str, Any]) -> dict[str, Any]:
    """The keywords of the model that a golden was made with."""
    known = {**SETTINGS, "pixels": NORMALIZED}
    for part in ("fpn_norm", "head_norm"):
        if models.rcnn.ORIGINALS[GOLDENS[facts["model"]]].get(part):
            known[part] = "frozen"
    return known


def pad(facts: dict[str, Any]) -> Padded:
    """A golden's images, drawn, normalised, resized and batched."""
    mean, std = (np.array(s, np.float32) / 255 for s in STATISTICS["imagenet"])
    shrink = jax.jit(resize.bilinear, static_argnums=1)
    images, sizes, shapes = [], [], []
    for drawn in facts["input"]:
        image = (goldens.draw_images(drawn["shape"], drawn["seed"])[0] - mean) / std
        size = image.shape[:2]
        shape = goldens.resized_shape(size, facts)
        images.append(np.asarray(shrink(image, shape)))
        sizes.append(size)
        shapes.append(shape)
    h, w = (-(-max(side) // 32) * 32 for side in zip(*shapes, strict=True))
    batch = np.zeros((len(images), h, w, 3), np.float32)
    for i, image in enumerate(images):
        batch[i, : image.shape[0], : image.shape[1]] = image
    scale = np.divide(shapes, sizes).astype(np.float32)
    affine = np.zeros((len(images), 2, 3), np.float32)
    affine[:, 0, 0], affine[:, 1, 1] = scale[:, 1], scale[:, 0]
    windows = np.array([[0, 0, w, h] for h, w in shapes], np.float32)
    return Padded(batch, windows, affine, np.array(sizes, np.int32), shapes)


def draw_batch(padded: Padded, targets: list[dict[str, Any]]) -> Batch:
    """A golden's objects, resized with their images."""
    b, h, w, _ = padded.images.shape
    n = max(1, *(len(t["boxes"]) for t in targets))
    k = max(len(points) for t in targets for points in [*t["keypoints"], []])
    objects = Objects(
        boxes=np.zeros((b, n, 4), np.float32),
        labels=np.zeros((b, n), np.int32),
        valid=np.zeros((b, n), bool),
        crowd=np.zeros((b, n), bool),
        masks=np.zeros((b, n, h, w), np.uint8),
        keypoints=np.zeros((b, n, k, 3), np.float32),
    )
    for i, target in enumerate(targets):
        m, shape = len(target["boxes"]), padded.shapes[i]
        if not m:
            continue
        scale = padded.affine[i, [0, 1], [0, 1]]
        given = np.array(target["boxes"], np.float32)
        objects.boxes[i, :m] = given * np.tile(scale, 2)
        objects.labels[i, :m] = np.asarray(target["labels"]) - 1
        objects.valid[i, :m] = True
        objects.keypoints[i, :m] = np.array(target["keypoints"], np.float32)
        objects.keypoints[i, :m, :, :2] *= scale
        drawn = np.stack([goldens.ellipse(box, padded.sizes[i]) for box in given])
        if not np.array_equal(drawn.sum(axis=(1, 2)), target["mask_area"]):
            raise ValueError("the ellipses drawn are not the golden's")
        moved = np.asarray(resize.nearest(np.moveaxis(drawn, 0, -1), shape))
        objects.masks[i, :m, : shape[0], : shape[1]] = np.moveaxis(moved, -1, 0)
    return Batch(
        images=padded.images,
        objects=objects,
        index=np.arange(b, dtype=np.int32),
        affine=padded.affine,
        sizes=padded.sizes,
        valid=np.ones(b, bool),
        cut=np.zeros(b, np.int32),
        small=np.zeros(b, np.int32),
    )


def certify(path: str | pathlib.Path) -> Certificate:
    """The golden of a torchvision detector at `path` against ours.

    Raises ValueError where names or shapes do not fit.
    """
    golden = goldens.read(path)
    facts, padded = golden.facts, pad(golden.facts)
    make = functools.partial(models.make, GOLDENS[facts["model"]], **settings_of(facts))
    model = make()
    shapes = jax.eval_shape(model.init, jax.random.key(0), padded.images)
    params, state, _ = convert.load(
        golden.state_dict,
        *shapes,
        source="torchvision",
        classes=model.net.num_classes,
    )
    found = jax.device_get(
        jax.jit(model.predict)(params, state, padded.images, padded.windows)
    )
    matched = [
        _match(found, i, padded, image) for i, image in enumerate(facts["detections"])
    ]
    raw = _raw(model, params, state, padded, found.boxes)
    outputs, proposals = _outputs(raw, matched, padded, facts["outputs"])
    for i, image in enumerate(facts["detections"]):
        outputs |= _drawn(found, i, matched[i], padded, image)
    losses, gradients = _training(make, params, state, padded, facts["train"])
    twins = sum((m >= 0).sum() for m in matched)
    count = sum(
        max(len(m), int(valid.sum()))
        for m, valid in zip(matched, found.valid, strict=True)
    )
    return Certificate(
        golden.name,
        sum(x.size for x in jax.tree.leaves(params)),
        facts["parameters"],
        outputs,
        losses,
        gradients,
        float(twins / max(count, 1)),
        proposals=proposals,
    )


def _training(make, params, state, padded, expected):
    """The errors of losses and gradients, every candidate being sampled.

    A first pass counts the positives, for whom alone masks and keypoints are learnt.
    """
    everything = {"samples": ALL, "rpn_samples": ALL}
    batch = draw_batch(padded, expected["targets"])
    boxes_only = make(**everything, masks=False, keypoints=0)
    keys = [k for k in params["roi_heads"] if k.startswith("box_")]
    some = {**params, "roi_heads": {k: params["roi_heads"][k] for k in keys}}
    _, (_, metrics) = jax.jit(boxes_only.loss)(some, state, batch, jax.random.key(0))
    count = -(-int(metrics["positives"]) // 16) * 16
    model = make(**everything, mask_samples=count)
    return training(model, params, state, batch, expected, "torchvision")


class Raw(NamedTuple):
    """What the network says, before anything is chosen."""

    outputs: Any
    proposals: Any
    logits: Any  # [b p c+1]
    deltas: Any  # [b p c+1 4]
    masks: Any  # [b n r r c+1], or None
    keypoints: Any  # [b n r r k], or None


def _raw(model: Model, params, state, padded: Padded, boxes) -> Raw:
    def run(net, images, windows, boxes):
        outputs = net(images)
        proposals = net.propose(outputs, windows, False)
        logits, deltas = net.boxes(
            net.read(outputs.levels, proposals.boxes, net.bins[0])
        )
        regions = net.read(outputs.levels, boxes, net.bins[1])
        heads = net.roi_heads
        return Raw(
            outputs,
            proposals,
            logits,
            deltas,
            None if heads.mask_head is None else net.masks(regions),
            None if heads.keypoint_head is None else net.keypoints(regions),
        )

    made = jax.jit(linen.apply(run, model.net))(
        {"params": params, **state}, padded.images, padded.windows, boxes
    )
    return jax.device_get(made)


def _outputs(raw: Raw, matched, padded: Padded, expected):
    """The error of every raw output, and the part of the proposals with a twin."""
    errors = {"images": summary_error(nchw(padded.images), expected["images"])}
    levels = [*raw.outputs.levels, raw.outputs.levels[-1][:, ::2, ::2]]
    names = [*(f"feature.{i}" for i in range(len(levels) - 1)), "feature.pool"]
    for name, level in zip(names, levels, strict=True):
        errors[name] = summary_error(nchw(level), expected[name])
    start = 0
    for i, (level, count) in enumerate(zip(levels, raw.outputs.counts, strict=True)):
        b, h, w, _ = level.shape
        for name, value in (
            ("objectness", raw.outputs.logits),
            ("deltas", raw.outputs.deltas),
        ):
            part = value[:, start : start + count].reshape(b, h, w, -1)
            key = f"rpn.{name}.{i}"
            errors[key] = summary_error(nchw(part), expected[key])
        start += count
    counts = [expected[f"proposals.{i}"]["shape"][0] for i in range(b)]
    for name, value in (("box.logits", raw.logits), ("box.deltas", raw.deltas)):
        rows = [
            # The background first.
            np.roll(each[valid], 1, axis=1).reshape(valid.sum(), -1)
            for each, valid in zip(value, raw.proposals.valid, strict=True)
        ]
        errors[name] = _rows_error(rows, counts, expected[name])
    if raw.masks is not None:
        logits = np.moveaxis(np.roll(raw.masks, 1, axis=-1), -1, 2)
        errors["mask_logits"] = known_error(
            in_order(logits, matched), expected["mask_logits"]
        )
    if raw.keypoints is not None:
        errors["keypoint_logits"] = known_error(
            in_order(np.moveaxis(raw.keypoints, -1, 2), matched),
            expected["keypoint_logits"],
        )
    return errors, _proposals(raw.proposals, expected)


def nchw(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(np.asarray(x), -1, 1)


def in_order(values: np.ndarray, matched: list[np.ndarray]) -> np.ndarray:
    """Values [b n ...] of detections as the original lists them; NaN without a twin."""
    rows = []
    for value, match in zip(values, matched, strict=True):
        some = match.reshape(-1, *(1,) * (value.ndim - 1)) >= 0
        rows.append(np.where(some, value[match], np.nan))
    return np.concatenate(rows)


def _proposals(ours, expected) -> float:
    """The part of the expected proposals that have a twin among ours, of 1.

    Proposals too many or too few count like those that differ.
    """
    shares = []
    for i, (boxes, valid) in enumerate(zip(ours.boxes, ours.valid, strict=True)):
        known = np.asarray(expected[f"proposals.{i}"]["value"]).reshape(-1, 4)
        total = expected[f"proposals.{i}"]["shape"][0]
        apart = np.abs(known[:, None] - boxes[valid][None]).max(axis=-1).min(axis=1)
        missing = abs(int(valid.sum()) - total) / total
        shares.append((apart < 0.01).mean() - missing)
    return float(np.mean(shares))


def _rows_error(
    rows: list[np.ndarray],
    counts: list[int],
    summary: dict[str, Any],
    reach: int = 3,
) -> float:
    """`summary_error` of each image's rows, where some may lie a few places off.

    Proposals of nearly the same objectness come in either order, and one may suppress
    another or not: where our `counts` are not the original's, the positions of one row
    in a hundred may hold what only the original proposed.
    """
    value = np.concatenate(
        [
            np.pad(row, ((0, max(count - len(row), 0)), (0, 0)), "edge")[:count]
            for row, count in zip(rows, counts, strict=True)
        ]
    )
    if list(value.shape) != list(summary["shape"]):
        raise ValueError(f"shape {value.shape}, the original has {summary['shape']}")
    index, want = np.asarray(summary["index"]), np.asarray(summary["value"])
    at = [
        np.roll(value, by, axis=0).reshape(-1)[index] for by in range(-reach, reach + 1)
    ]
    errors = np.abs(np.stack(at) - want).min(axis=0)
    if [len(row) for row in rows] != list(counts):
        return float(np.quantile(errors, 0.99, method="lower") / summary["std"])
    moments = value.mean() - summary["mean"], value.std() - summary["std"]
    return float(max(errors.max(), *np.abs(moments)) / summary["std"])


def _match(found, i: int, padded: Padded, expected) -> np.ndarray:
    """For each expected detection the place of ours, -1 where there is none."""
    scale = np.tile(padded.affine[i, [0, 1], [0, 1]], 2)
    boxes, scores = found.boxes[i] / scale, found.scores[i]
    free = found.valid[i].copy()
    match = np.full(len(expected["boxes"]), -1)
    for j, box in enumerate(expected["boxes"]):
        apart = np.abs(boxes - box).max(axis=1)
        near = (apart < 0.05) & (np.abs(scores - expected["scores"][j]) < 1e-4)
        near &= free & (found.labels[i] == expected["labels"][j] - 1)
        if near.any():
            match[j] = np.argmin(np.where(near, apart, np.inf))
            free[match[j]] = False
    return match


def _drawn(found, i: int, match, padded: Padded, expected) -> dict[str, float]:
    """The errors of image i's masks and keypoints, in its own pixels."""
    errors = {}
    some = match >= 0
    if "masks" in expected:
        size = tuple(padded.sizes[i].tolist())
        scale = np.tile(padded.affine[i, [0, 1], [0, 1]], 2)
        drawn = np.full((len(match), 1, *size), np.nan)
        for j in np.flatnonzero(some):
            box = found.boxes[i][match[j]] / scale
            mask = paste.drawn(found.box_masks[i][match[j]], box, size)
            drawn[j, 0] = patches.whole(mask)
        errors[f"masks.{i}"] = known_error(drawn, expected["masks"])
    if "keypoints" in expected:
        ours = found.keypoints[i][match].copy()
        scores = np.where(some[:, None], ours[..., 2], np.nan)
        ours[..., :2] /= padded.affine[i, [0, 1], [0, 1]]
        ours[..., 2] = 1
        ours[~some] = np.nan
        errors[f"keypoints.{i}"] = known_error(ours, expected["keypoints"])
        errors[f"keypoints_scores.{i}"] = known_error(
            scores, expected["keypoints_scores"]
        )
    return errors
