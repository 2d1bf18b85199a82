"""Outputs in the layout of torchvision's two-stage detectors, and our errors.

Detections and proposals of nearly equal scores may come in either order; what belongs
to a detection is compared with that of its twin.
"""

from typing import Any, NamedTuple

import numpy as np

from detjax.data import paste, patches
from detjax.parity.certificate import Training, twins
from detjax.parity.detector_inputs import Padded
from detjax.parity.goldens import known_error, summary_error
from detjax.types import Detections, Proposals

# How far twins may differ: pixels of the original picture, and scores.
WITHIN = {"boxes": 0.05, "scores": 1e-4}


class Raw(NamedTuple):
    """The network's raw outputs."""

    outputs: Any
    proposals: Any
    logits: Any  # [b p c+1]
    deltas: Any  # [b p c+1 4]
    masks: Any  # [b n r r c+1], or None
    keypoints: Any  # [b n r r k], or None


class Answers(NamedTuple):
    """What our model has for a golden."""

    parameters: int
    padded: Padded
    raw: Raw
    found: Detections  # in the batch's pixels
    training: Training


def detections(
    found: Detections, padded: Padded, first: int = 1
) -> list[dict[str, np.ndarray]]:
    """Detections of each image in its own pixels; the original's labels begin later.

    Our label 0 is its `first`.
    """
    scale = np.tile(padded.scale, 2)
    return [
        {
            "boxes": found.boxes[i][some] / scale[i],
            "labels": found.labels[i][some] + first,
            "scores": found.scores[i][some],
        }
        for i, some in enumerate(found.valid)
    ]


def matches(
    found: Detections, padded: Padded, expected: list[dict[str, Any]], first: int = 1
) -> list[np.ndarray]:
    """For each image and expected detection the place of ours, -1 without a twin."""
    matched = []
    for ours, image, valid in zip(
        detections(found, padded, first), expected, found.valid, strict=True
    ):
        twin = twins(ours, image, WITHIN)
        matched.append(
            np.where(twin < 0, -1, np.append(np.flatnonzero(valid), -1)[twin])
        )
    return matched


def raw_outputs(ours: Answers, matched: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Every raw output in torchvision's layout, those of detections as `matched`.

    Detections without a twin are NaN.
    """
    raw = ours.raw
    values = {"images": _nchw(ours.padded.inputs.images)}
    levels = [*raw.outputs.levels, raw.outputs.levels[-1][:, ::2, ::2]]
    names = [*(f"feature.{i}" for i in range(len(levels) - 1)), "feature.pool"]
    start = 0
    for i, (level, count) in enumerate(
        zip(levels, raw.outputs.priors.counts, strict=True)
    ):
        values[names[i]] = _nchw(level)
        here = slice(start, start + count)
        cells = (*level.shape[:3], -1)
        logits, deltas = raw.outputs.logits[:, here], raw.outputs.deltas[:, here]
        values[f"rpn.objectness.{i}"] = _nchw(logits.reshape(cells))
        values[f"rpn.deltas.{i}"] = _nchw(deltas.reshape(cells))
        start += count
    for name, value in (("box.logits", raw.logits), ("box.deltas", raw.deltas)):
        some = np.roll(value[raw.proposals.valid], 1, axis=1)  # the background first
        values[name] = some.reshape(len(some), -1)
    if raw.masks is not None:
        maps = np.moveaxis(np.roll(raw.masks, 1, axis=-1), -1, 2)
        values["mask_logits"] = _in_order(maps, matched)
    if raw.keypoints is not None:
        maps = np.moveaxis(raw.keypoints, -1, 2)
        values["keypoint_logits"] = _in_order(maps, matched)
    return values


def output_errors(
    ours: Answers, matched: list[np.ndarray], facts: dict[str, Any]
) -> dict[str, float]:
    """The error of every raw output, and of what is drawn into the pictures."""
    expected = facts["outputs"]
    values, errors = raw_outputs(ours, matched), {}
    counts = ours.raw.proposals.valid.sum(axis=1)
    theirs = [expected[f"proposals.{i}"]["shape"][0] for i in range(len(counts))]
    for name, value in values.items():
        if name.startswith("box."):
            rows = np.split(value, np.cumsum(counts)[:-1])
            errors[name] = _rows_error(rows, theirs, expected[name])
        elif name.endswith("_logits"):
            errors[name] = known_error(value, expected[name])
        else:
            errors[name] = summary_error(value, expected[name])
    for i, image in enumerate(facts["detections"]):
        for name, value in drawn(ours, i, matched[i]).items():
            errors[f"{name}.{i}"] = known_error(value, image[name])
    return errors


def _nchw(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(np.asarray(x), -1, 1)


def _of_twins(value: np.ndarray, match: np.ndarray) -> np.ndarray:
    """Values [n ...] of one image's detections as matched; NaN without a twin."""
    some = match.reshape(-1, *(1,) * (value.ndim - 1)) >= 0
    return np.where(some, value[match], np.nan)


def _in_order(values: np.ndarray, matched: list[np.ndarray]) -> np.ndarray:
    """Values [b n ...] of detections as the original lists them."""
    return np.concatenate(list(map(_of_twins, values, matched)))


def proposals_found(ours: Proposals, expected) -> float:
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
    expected: dict[str, Any],
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
    if list(value.shape) != list(expected["shape"]):
        raise ValueError(f"shape {value.shape}, the original has {expected['shape']}")
    index, want = np.asarray(expected["index"]), np.asarray(expected["value"])
    at = [
        np.roll(value, by, axis=0).reshape(-1)[index] for by in range(-reach, reach + 1)
    ]
    errors = np.abs(np.stack(at) - want).min(axis=0)
    if [len(row) for row in rows] != list(counts):
        return float(np.quantile(errors, 0.99, method="lower") / expected["std"])
    moments = value.mean() - expected["mean"], value.std() - expected["std"]
    return float(max(errors.max(), *np.abs(moments)) / expected["std"])


def drawn(ours: Answers, i: int, match: np.ndarray) -> dict[str, np.ndarray]:
    """Masks and keypoints of image i in its own pixels, NaN without a twin."""
    found, scale = ours.found, ours.padded.scale[i]
    values: dict[str, np.ndarray] = {}
    if found.box_masks is not None:
        size = tuple(ours.padded.inputs.view.sizes[i].tolist())
        values["masks"] = np.full((len(match), 1, *size), np.nan)
        for j in np.flatnonzero(match >= 0):
            box = found.boxes[i][match[j]] / np.tile(scale, 2)
            mask = paste.drawn(found.box_masks[i][match[j]], box, size)
            values["masks"][j, 0] = patches.full_mask(mask)
    if found.keypoints is not None:
        places = found.keypoints[i].copy()
        values["keypoints_scores"] = _of_twins(places[..., 2], match)
        places[..., :2] /= scale
        places[..., 2] = 1
        values["keypoints"] = _of_twins(places, match)
    return values
