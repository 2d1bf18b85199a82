"""YOLACT and YOLACT++, by goldens of the authors' code."""

from typing import Any, NamedTuple

import jax
import numpy as np

from detjax import models
from detjax.models.yolact import ORIGINALS
from detjax.nn.images import NORMALIZED
from detjax.ops import masks
from detjax.parity import certificate, goldens
from detjax.parity.certificate import Certificate, Training
from detjax.parity.goldens import Golden, summary, summary_error
from detjax.types import Batch, Inputs, Model, View
from detjax.weights import convert

# Our names of the models behind the authors' configurations.
MODELS = {f"{name}_config": name for name in ORIGINALS}
ORIGINS = ("dbolya/yolact",)
SOURCE = "yolact"  # of weights
LOSSES = {"B": "box", "C": "class", "M": "mask", "S": "semantic", "I": "rescore"}
# Relative coordinates, and scores.
WITHIN = {"boxes": 1e-3, "scores": 1e-4, "mask_scores": 1e-3}


class Answers(NamedTuple):
    """What our model has for a golden, in the original's layout and units."""

    parameters: int
    outputs: dict[str, np.ndarray]
    training: Training
    detections: list[dict[str, np.ndarray]]


def certify(golden: Golden) -> Certificate:
    """`golden` against detjax: weights, outputs, losses, gradients, boxes.

    Raises ValueError where names or shapes do not fit.
    """
    facts, ours = golden.facts, _answers(golden)
    losses, gradients = certificate.training_errors(
        ours.training, facts["train"], LOSSES
    )
    # The original's boxes may reach out of the image, ours are clipped to it.
    clipped = [
        {**image, "boxes": np.clip(image["boxes"], 0, 1)}
        for image in facts["detections"]
    ]
    matched = [
        certificate.twins(found, image, WITHIN)
        for found, image in zip(ours.detections, clipped, strict=True)
    ]
    counts = [len(found["boxes"]) for found in ours.detections]
    return Certificate(
        golden.name,
        ours.parameters,
        facts["parameters"],
        {
            name: summary_error(ours.outputs[name], expected)
            for name, expected in facts["outputs"].items()
        },
        losses,
        gradients,
        certificate.share(matched, counts),
        max(map(_area_error, ours.detections, facts["detections"], matched)),
    )


def answers(golden: Golden) -> dict[str, Any]:
    """What a golden of this source holds, by our own code."""
    ours = _answers(golden)
    return {
        "parameters": ours.parameters,
        "outputs": {name: summary(value) for name, value in ours.outputs.items()},
        "detections": [
            {name: value.tolist() for name, value in found.items()}
            for found in ours.detections
        ],
        "train": {**golden.facts["train"], **ours.training.facts()},
    }


def shapes(facts: dict[str, Any]) -> tuple[Any, Any]:
    """Shapes of the parameters and of the state of a golden's model."""
    return jax.eval_shape(_model(facts).init, jax.random.key(0), _images(facts))


def draw_batch(images: np.ndarray, targets: list[dict[str, Any]]) -> Batch:
    """The objects of a golden as a batch; the last `crowds` of an image are crowds."""
    b, h, w, _ = images.shape
    n = max(len(t["boxes"]) for t in targets)
    objects = goldens.empty_objects(b, n, (h, w))
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
    view = View(
        affine=np.tile(np.eye(3, dtype=np.float32)[:2], (b, 1, 1)),
        sizes=np.tile(np.array([h, w], np.int32), (b, 1)),
        valid=np.ones(b, bool),
    )
    return Batch(Inputs(images, view), objects, np.arange(b, dtype=np.int32))


def _model(facts: dict[str, Any]) -> Model:
    settings = {"pixels": NORMALIZED, **goldens.settings(facts)}
    return models.make(MODELS[facts["model"]], **settings)


def _images(facts: dict[str, Any]) -> np.ndarray:
    drawn = goldens.draw_images(facts["input"]["shape"], facts["input"]["seed"])
    return drawn * 4 - 2


def _answers(golden: Golden) -> Answers:
    facts = golden.facts
    model, images = _model(facts), _images(facts)
    classes = goldens.background_period(facts) - 1
    params, state, _ = convert.load(
        golden.state_dict, *shapes(facts), source=SOURCE, classes=classes
    )
    found = jax.jit(model.predict)(params, state, Inputs(images))
    batch = draw_batch(images, facts["train"]["targets"])
    return Answers(
        certificate.size(params),
        _outputs(model, params, state, images),
        certificate.training(model, params, state, batch, names=LOSSES, source=SOURCE),
        _detections(jax.device_get(found), images.shape[1:3]),
    )


def _outputs(model, params, state, images) -> dict[str, np.ndarray]:
    """Every raw output."""

    @jax.jit
    def forward(params, state, images):
        variables = {"params": params, **state}
        return model.net.apply(variables, images, train=True, mutable=[*state])[0]

    ours = forward(params, state, images)
    h, w = images.shape[1:3]
    priors = np.asarray(ours.priors, np.float64) / [w, h, w, h]
    low, high = priors[:, :2], priors[:, 2:]
    return {
        "loc": ours.deltas,
        "conf": np.roll(ours.logits, 1, axis=-1),  # the background first
        "mask": ours.coefficients,
        "priors": np.concatenate([(low + high) / 2, high - low], axis=1),
        "proto": ours.prototypes,
        "segm": np.moveaxis(np.asarray(ours.semantic), -1, 1),
    }


def _detections(found, size: tuple[int, int]) -> list[dict[str, np.ndarray]]:
    """Detections of each image, boxes as fractions of its `size`."""
    h, w = size
    images = []
    for i, some in enumerate(found.valid):
        # One by one: what is enlarged of hundreds would be half a gigabyte.
        drawn = [
            float((masks.resize(mask[None], (240, 320)) > 0.5).sum())
            for mask in found.masks[i][some]
        ]
        image = {
            "boxes": found.boxes[i][some] / [w, h, w, h],
            "labels": found.labels[i][some],
            "scores": found.scores[i][some],
            "mask_pixels_320x240": np.array(drawn),
        }
        if found.mask_scores is not None:
            image["mask_scores"] = found.mask_scores[i][some]
        images.append(image)
    return images


def _area_error(ours, expected, match: np.ndarray) -> float:
    """The largest difference of a mask's area from its twin's, relative to that."""
    name = "mask_pixels_320x240"
    some = match >= 0
    areas = np.asarray(expected[name], np.float64)[some]
    apart = np.abs(ours[name][match[some]] - areas)
    # A pixel of a tiny mask is no more than a pixel of a small one.
    return float((apart / np.maximum(areas, 100)).max(initial=0))
