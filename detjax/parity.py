"""Certificates: how far a model is from the original, by a golden of that original."""

import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util

from detjax import backbones, goldens, models
from detjax.goldens import Golden, relative, summary_error
from detjax.nn.images import NORMALIZED
from detjax.ops import masks
from detjax.types import Batch, Model, Objects
from detjax.weights import convert
from detjax.weights.names import spell


class Certificate(NamedTuple):
    """How far a model is from its original; errors are the largest, relative ones."""

    model: str
    parameters: int
    expected_parameters: int
    outputs: dict[str, float]  # in units of the output's std
    losses: dict[str, float] | None = None
    gradients: dict[str, float] | None = None  # of norms, by the original's names
    detections: float | None = None  # the part of the original's with a twin, of 1
    mask_areas: float | None = None  # largest difference, in parts of the mask's area
    proposals: float | None = None  # the part of the original's with a twin, of 1


def _model(golden: Golden) -> tuple[Model, str]:
    """The model behind a golden, and the name of its weights' source."""
    name = golden.facts["model"].removesuffix("_config")
    return models.make(name, pixels=NORMALIZED), "yolact"


def certify_classifier(path: str | pathlib.Path) -> Certificate:
    """The golden of a torchvision classifier at `path` against our backbone's logits.

    Raises ValueError where names or shapes do not fit.
    """
    golden = goldens.read(path)
    facts = golden.facts
    classes = facts["outputs"]["logits"]["shape"][-1]
    net = backbones.make(facts["model"], num_classes=classes)
    drawn = goldens.draw_images(facts["input"]["shape"], facts["input"]["seed"])
    images = drawn * 4 - 2
    shapes = dict(jax.eval_shape(net.init, jax.random.key(0), images))
    params, state, _ = convert.load(
        golden.state_dict, shapes.pop("params"), shapes, source="torchvision"
    )
    logits = jax.jit(net.apply)({"params": params, **state}, images)
    return Certificate(
        golden.name,
        sum(x.size for x in jax.tree.leaves(params)),
        facts["parameters"],
        {"logits": summary_error(logits, facts["outputs"]["logits"])},
    )


def certify(path: str | pathlib.Path) -> Certificate:
    """The golden at `path` against detjax: weights, outputs, losses, gradients, boxes.

    Raises ValueError where names or shapes do not fit.
    """
    golden = goldens.read(path)
    facts = golden.facts
    model, source = _model(golden)
    classes = goldens.background_period(facts) - 1
    images = (
        goldens.draw_images(facts["input"]["shape"], facts["input"]["seed"]) * 4 - 2
    )
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    params, state, _ = convert.load(
        golden.state_dict, *shapes, source=source, classes=classes
    )
    batch = draw_batch(images, facts["train"]["targets"])
    losses, gradients = training(model, params, state, batch, facts["train"], source)
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
            objects.masks[i, j] = goldens.ellipse(objects.boxes[i, j], (h, w))
        areas = objects.masks[i, :m].sum(axis=(1, 2))
        if not np.array_equal(areas, target["mask_area"]):
            raise ValueError(f"masks have areas {areas}, not {target['mask_area']}")
    return Batch(
        images=images,
        objects=objects,
        index=np.arange(b, dtype=np.int32),
        affine=np.tile(np.eye(3, dtype=np.float32)[:2], (b, 1, 1)),
        sizes=np.tile(np.array([h, w], np.int32), (b, 1)),
        valid=np.ones(b, bool),
        cut=np.zeros(b, np.int32),
        small=np.zeros(b, np.int32),
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


LOSSES = {
    "B": "box",
    "C": "class",
    "M": "mask",
    "S": "semantic",
    "I": "rescore",
    "loss_classifier": "class",
    "loss_box_reg": "box",
    "loss_mask": "mask",
    "loss_keypoint": "keypoint",
    "loss_objectness": "rpn_class",
    "loss_rpn_box_reg": "rpn_box",
}


def training(model, params, state, batch, expected, source):
    """The errors of the losses, and of the norm of every parameter's gradient."""
    step = jax.jit(jax.value_and_grad(model.loss, has_aux=True))
    (total, (_, metrics)), gradients = step(params, state, batch, jax.random.key(0))
    losses = {
        LOSSES[name]: relative(metrics[LOSSES[name]], value)
        for name, value in expected["losses"].items()
    }
    losses["total"] = relative(total, expected["total"])
    norms = {
        spell(".".join(path), source): goldens.norms(np.asarray(gradient))
        for path, gradient in traverse_util.flatten_dict(gradients).items()
    }
    known = expected["grad_norm"]
    if norms.keys() != known.keys():
        raise ValueError(f"gradients differ by name: {norms.keys() ^ known.keys()}")
    # A norm that is nothing beside the largest is rounding on both sides.
    floor = 1e-6 * max(known.values())
    return losses, {
        k: min(relative(norm, known[k], floor) for norm in norms[k]) for k in known
    }


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
        # Detections too many count against us like those that are missing.
        count += max(len(image["boxes"]), len(boxes))
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
            # A pixel of a tiny mask is no more than a pixel of a small one.
            worst = max(worst, abs(float(drawn.sum()) - area) / max(area, 100))
    return twins / max(count, 1), worst
