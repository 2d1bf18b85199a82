"""What an original implementation computed, against what detjax computes.

A golden is a JSON file with the answers of an original implementation for weights and
images that anyone can draw again: the recipe is in `draw_weights` and `draw_images`.
Nothing of a check is written here but the tolerances' units; seeds, shapes and scales
come from the file.
"""

import json
import pathlib
import re
import zlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from detjax import models
from detjax.ops import masks
from detjax.types import Batch, Model, Objects
from detjax.weights import convert
from detjax.weights.names import spell


class Golden(NamedTuple):
    """A golden file, and the state dict that its recipe draws."""

    name: str
    facts: dict[str, Any]
    state_dict: dict[str, np.ndarray]


class Certificate(NamedTuple):
    """How far a model is from its original; errors are the largest, relative ones."""

    model: str
    parameters: int
    expected_parameters: int
    outputs: dict[str, float]  # in units of the output's std
    losses: dict[str, float]
    gradients: dict[str, float]  # of each parameter's norm, by the original's name
    detections: float  # the part of the original's that has its twin, of 1
    mask_areas: float  # largest difference, in parts of the mask's area


def read(path: str | pathlib.Path) -> Golden:
    """The golden at `path`."""
    path = pathlib.Path(path)
    facts = json.loads(path.read_text())
    return Golden(path.stem, facts, draw_weights(facts))


def draw_weights(facts: dict[str, Any]) -> dict[str, np.ndarray]:
    """The state dict of a golden, drawn by name and shape."""
    drawn = {
        name: draw(name, tuple(shape), facts) for name, shape in facts["state_dict"]
    }
    note = facts.get("recipe_note", "")
    found = re.search(r"([\d.]+) is added", note)
    if found and "conf_layer.bias" in note:
        offset = float(found[1])
        for name, value in drawn.items():
            if name.endswith("conf_layer.bias"):
                # (anchors, classes) with the background first, per the note.
                classes = background_period(facts)
                value.reshape(-1, classes)[:, 0] += offset
    return drawn


def background_period(facts: dict[str, Any]) -> int:
    """Classes with background, from the shape of the file's own output."""
    return int(facts["outputs"]["conf"]["shape"][-1])


def draw(name: str, shape: tuple[int, ...], facts: dict[str, Any]) -> np.ndarray:
    """One array of the recipe."""
    rng = np.random.default_rng([facts["seed"], zlib.crc32(name.encode())])
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if name.endswith("running_var"):
        value = rng.uniform(0.5, 1.5, shape)
    elif len(shape) == 1 and name.endswith("weight"):
        value = rng.uniform(*norm_scale(name, facts["norm_scale"]), shape)
    elif len(shape) < 2:
        value = 0.1 * rng.standard_normal(shape)
    else:
        gain = facts.get("gain", 2.0)
        fan_in = np.prod(shape[1:])
        value = np.sqrt(gain / fan_in) * rng.standard_normal(shape)
    return np.asarray(value, np.float32)


def norm_scale(name: str, scale: Any) -> tuple[float, float]:
    """The range of a norm's scale: one for all, or by where the name starts."""
    if isinstance(scale, dict):
        scale = scale["backbone" if name.startswith("backbone") else "other"]
    return tuple(scale)


def draw_images(shape: list[int], seed: int) -> np.ndarray:
    """The images [n h w 3] of a golden, in [0, 1]."""
    n, h, w, channels = shape
    rng = np.random.default_rng([seed, 7])
    y, x = np.mgrid[0:h, 0:w] / 32.0
    images = np.zeros(shape)
    for i in range(n):
        for c in range(channels):
            for _ in range(6):
                fy, fx = rng.uniform(-2, 2), rng.uniform(-2, 2)
                p, a = rng.uniform(0, 6.28), rng.uniform(0.2, 1)
                images[i, :, :, c] += a * np.sin(fy * y + fx * x + p)
    images -= images.min()
    return (images / images.max()).astype(np.float32)


def ellipse(box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The filled ellipse inscribed in `box` xyxy, sampled at pixel centres, [h w]."""
    x1, y1, x2, y2 = box
    y, x = np.mgrid[0 : size[0], 0 : size[1]] + 0.5
    rx, ry = (x2 - x1) / 2, (y2 - y1) / 2
    return ((x - (x1 + x2) / 2) / rx) ** 2 + ((y - (y1 + y2) / 2) / ry) ** 2 <= 1


def summary_error(value: np.ndarray, summary: dict[str, Any]) -> float:
    """Largest error at the golden's positions and of its moments, in units of its std.

    Raises ValueError where the shapes differ.
    """
    value = np.asarray(value, np.float64)
    if list(value.shape) != list(summary["shape"]):
        raise ValueError(f"shape {value.shape}, the original has {summary['shape']}")
    at = value.reshape(-1)[np.asarray(summary["index"])]
    errors = np.abs(at - np.asarray(summary["value"]))
    moments = (value.mean() - summary["mean"], value.std() - summary["std"])
    return float(max(errors.max(), *np.abs(moments)) / max(summary["std"], 1e-12))


def relative(value: float, expected: float, floor: float = 1e-12) -> float:
    """|value - expected| relative to the expected size."""
    return abs(float(value) - expected) / max(abs(expected), floor)


def _model(golden: Golden) -> tuple[Model, str]:
    """The model behind a golden, and the name of its weights' source."""
    name = golden.facts["model"].removesuffix("_config")
    return models.make(name), "yolact"


def certify(path: str | pathlib.Path) -> Certificate:
    """The golden at `path` against detjax: weights, outputs, losses, gradients, boxes.

    Raises ValueError where names or shapes do not fit.
    """
    golden = read(path)
    facts = golden.facts
    model, source = _model(golden)
    classes = background_period(facts) - 1
    images = draw_images(facts["input"]["shape"], facts["input"]["seed"]) * 4 - 2
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    params, state, _ = convert.load(
        golden.state_dict, *shapes, source=source, classes=classes
    )
    batch = draw_batch(images, facts["train"]["targets"])
    losses, gradients = _training(model, params, state, batch, facts["train"], source)
    detections, areas = _detections(
        jax.jit(model.predict)(params, state, images), facts["detections"], images
    )
    return Certificate(
        golden.name,
        sum(x.size for x in jax.tree.leaves(params)),
        facts["parameters"],
        _outputs(model, params, state, images, facts["outputs"]),
        losses,
        gradients,
        detections,
        areas,
    )


def draw_batch(images: np.ndarray, targets: list[dict[str, Any]]) -> Batch:
    """The objects of a golden as a batch; the last `crowds` of an image are crowds."""
    b, h, w, _ = images.shape
    n = max(len(t["boxes"]) for t in targets)
    objects = Objects(
        boxes=np.zeros((b, n, 4), np.float32),
        labels=np.zeros((b, n), np.int32),
        valid=np.zeros((b, n), bool),
        crowd=np.zeros((b, n), bool),
        masks=np.zeros((b, n, h, w), np.uint8),
    )
    for i, target in enumerate(targets):
        m = len(target["boxes"])
        objects.boxes[i, :m] = np.asarray(target["boxes"]) * [w, h, w, h]
        objects.labels[i, :m] = target["labels"]
        objects.valid[i, :m] = True
        objects.crowd[i, m - target["crowds"] : m] = True
        for j in range(m):
            objects.masks[i, j] = ellipse(objects.boxes[i, j], (h, w))
        areas = objects.masks[i, :m].sum(axis=(1, 2))
        if not np.array_equal(areas, target["mask_area"]):
            raise ValueError(f"masks have areas {areas}, not {target['mask_area']}")
    return Batch(
        images=images,
        objects=objects,
        ids=np.arange(b, dtype=np.int32),
        affine=np.tile(np.eye(3, dtype=np.float32)[:2], (b, 1, 1)),
        sizes=np.tile(np.array([h, w], np.int32), (b, 1)),
        valid=np.ones(b, bool),
        cut=np.zeros(b, np.int32),
    )


def _outputs(model, params, state, images, expected) -> dict[str, float]:
    """The error of every raw output, in the original's layout and units."""

    @jax.jit
    def forward(params, state, images):
        variables = {"params": params, **state}
        return model.net.apply(variables, images, train=True, mutable=[*state])[0]

    ours = forward(params, state, images)
    h, w = images.shape[1:3]
    priors = np.asarray(ours.priors, np.float64) / [w, h, w, h]
    low, high = priors[:, :2], priors[:, 2:]
    values = {
        "loc": ours.deltas,
        "conf": np.roll(ours.logits, 1, axis=-1),  # the background first
        "mask": ours.coefficients,
        "priors": np.concatenate([(low + high) / 2, high - low], axis=1),
        "proto": ours.prototypes,
        "segm": np.moveaxis(np.asarray(ours.semantic), -1, 1),
    }
    return {name: summary_error(values[name], expected[name]) for name in expected}


LOSSES = {"B": "box", "C": "class", "M": "mask", "S": "semantic", "I": "rescore"}


def _training(model, params, state, batch, expected, source):
    """The errors of the losses, and of the norm of every parameter's gradient."""
    step = jax.jit(jax.value_and_grad(model.loss, has_aux=True))
    (total, (_, metrics)), gradients = step(params, state, batch, jax.random.key(0))
    losses = {
        LOSSES[name]: relative(metrics[LOSSES[name]], value)
        for name, value in expected["losses"].items()
    }
    losses["total"] = relative(total, expected["total"])
    norms = {
        spell(".".join(path), source): float(jnp.linalg.norm(gradient))
        for path, gradient in traverse_util.flatten_dict(gradients).items()
    }
    known = expected["grad_norm"]
    if norms.keys() != known.keys():
        raise ValueError(f"gradients differ by name: {norms.keys() ^ known.keys()}")
    # A norm that is nothing beside the largest is rounding on both sides.
    floor = 1e-7 * max(known.values())
    return losses, {k: relative(norms[k], known[k], floor) for k in known}


def _detections(found, expected, images) -> tuple[float, float]:
    """The part of the expected detections that we have, and the masks' area error."""
    h, w = images.shape[1:3]
    twins, count, worst = 0, 0, 0.0
    for i, image in enumerate(expected):
        some = np.asarray(found.valid[i])
        boxes = np.asarray(found.boxes[i])[some] / [w, h, w, h]
        labels, scores = found.labels[i][some], np.asarray(found.scores[i])[some]
        masks_ = np.asarray(found.masks[i])[some]
        judged = None
        if "mask_scores" in image:
            judged = np.asarray(found.mask_scores[i])[some]
        free = np.ones(len(boxes), bool)
        count += len(image["boxes"])
        for j, box in enumerate(np.clip(image["boxes"], 0, 1)):
            near = np.abs(boxes - box).max(axis=1, initial=0) < 1e-3
            near &= np.abs(scores - image["scores"][j]) < 1e-4
            if judged is not None:
                near &= np.abs(judged - image["mask_scores"][j]) < 1e-3
            twin = np.flatnonzero(free & near & (labels == image["labels"][j]))
            if not len(twin):
                continue
            twins += 1
            free[twin[0]] = False
            drawn = masks.resize(masks_[twin[:1]], (240, 320)) > 0.5
            area = image["mask_pixels_320x240"][j]
            worst = max(worst, abs(float(drawn.sum()) - area) / max(area, 1))
    return twins / max(count, 1), worst
