"""torchvision's detectors of one stage, by goldens of its own."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

from detjax import models
from detjax.nn.images import NORMALIZED
from detjax.parity import certificate, goldens
from detjax.parity import detector_outputs as outputs
from detjax.parity.certificate import Certificate, Training
from detjax.parity.detector_inputs import Padded, draw_batch, pad
from detjax.parity.goldens import Golden, joined, summary, summary_error
from detjax.types import Detections, Model
from detjax.weights import convert


class Original(NamedTuple):
    """What a golden's file does not say of its model."""

    first: int  # its label of our class 0
    pixels: str = "imagenet"
    side: int | None = None  # of its inputs, where they are squares of one size
    settings: Mapping[str, Any] = MappingProxyType({})
    # Levels behind the backbone's that the file names by their stride, such as "p6".
    named: bool = False


# The norms of weights that are drawn are plain ones.
_PLAIN = {"backbone": {"norm": "frozen", "norm_eps": 1e-5}}
MODELS = {
    "retinanet_resnet50_fpn": Original(0, settings=_PLAIN, named=True),
    "retinanet_resnet50_fpn_v2": Original(0, settings=_PLAIN, named=True),
    "fcos_resnet50_fpn": Original(0, settings=_PLAIN, named=True),
    "ssd300_vgg16": Original(1, pixels="caffe", side=300),
}
SOURCE = "torchvision"
ORIGINS = (SOURCE,)
LOSSES = {
    "classification": "class",
    "bbox_regression": "box",
    "bbox_ctrness": "centerness",
}


class Answers(NamedTuple):
    """What our model has for a golden."""

    parameters: int
    padded: Padded
    raw: dict[str, np.ndarray]  # outputs by the original's names, in its layout
    found: Detections  # in the batch's pixels
    training: Training


def certify(golden: Golden) -> Certificate:
    """`golden` against detjax: weights, raw outputs, losses, gradients, detections.

    Raises ValueError where names or shapes do not fit.
    """
    facts, ours = golden.facts, _answers(golden)
    first = MODELS[facts["model"]].first
    matched = outputs.matches(ours.found, ours.padded, facts["detections"], first)
    losses, gradients = certificate.training_errors(
        ours.training, facts["train"], LOSSES
    )
    expected = facts["outputs"]
    if ours.raw.keys() != expected.keys():
        raise ValueError(f"outputs differ by name: {ours.raw.keys() ^ expected.keys()}")
    return Certificate(
        golden.name,
        ours.parameters,
        facts["parameters"],
        {name: summary_error(v, expected[name]) for name, v in ours.raw.items()},
        losses,
        gradients,
        certificate.share(matched, ours.found.valid.sum(axis=1).tolist()),
    )


def answers(golden: Golden) -> dict[str, Any]:
    """What a golden of this source holds, by our own code."""
    ours = _answers(golden)
    first = MODELS[golden.facts["model"]].first
    return {
        "parameters": ours.parameters,
        "outputs": {name: summary(value) for name, value in ours.raw.items()},
        "detections": [
            {name: value.tolist() for name, value in found.items()}
            for found in outputs.detections(ours.found, ours.padded, first)
        ],
        "train": {**golden.facts["train"], **ours.training.facts()},
    }


def shapes(facts: dict[str, Any]) -> tuple[Any, Any]:
    """Shapes of the parameters and of the state of a golden's model."""
    images = _inputs(facts).inputs.images
    return jax.eval_shape(_model(facts).init, jax.random.key(0), images)


def _inputs(facts: dict[str, Any]) -> Padded:
    original = MODELS[facts["model"]]
    side = facts.get("side", original.side)
    return pad(facts, original.pixels, side)


def _model(facts: dict[str, Any]) -> Model:
    stages = {**MODELS[facts["model"]].settings, "pixels": NORMALIZED}
    return models.make(facts["model"], **joined(stages, goldens.settings(facts)))


def _answers(golden: Golden) -> Answers:
    facts, padded, model = golden.facts, _inputs(golden.facts), _model(golden.facts)
    first = MODELS[facts["model"]].first
    params, state, _ = convert.load(
        golden.state_dict, *shapes(facts), source=SOURCE, classes=model.spec.outputs
    )
    images = padded.inputs.images
    variables = {"params": params, **state}
    made = jax.device_get(jax.jit(model.net.apply)(variables, images))
    found = jax.device_get(jax.jit(model.predict)(params, state, padded.inputs))
    batch = draw_batch(padded, facts["train"]["targets"], first)
    return Answers(
        certificate.size(params),
        padded,
        {"images": np.moveaxis(images, -1, 1), **_raw(made, facts["model"])},
        found,
        certificate.training(model, params, state, batch, names=LOSSES, source=SOURCE),
    )


def _raw(made: Any, name: str) -> dict[str, np.ndarray]:
    """The network's outputs by the original's names, in its layout."""
    original, count = MODELS[name], len(made.levels)
    own = count - 2 if original.named else count
    names = [*map(str, range(own)), *(f"p{6 + i}" for i in range(count - own))]
    values = {
        f"feature.{label}": np.moveaxis(np.asarray(level), -1, 1)
        for label, level in zip(names, made.levels, strict=True)
    }
    # A softmax's background is the first there.
    values["head.cls_logits"] = np.roll(made.logits, original.first, axis=-1)
    if hasattr(made, "quality"):
        values["head.bbox_regression"] = made.reach
        values["head.bbox_ctrness"] = made.quality[..., None]
    else:
        values["head.bbox_regression"] = made.deltas
    return values
