"""Networks for pixels on dilated backbones, by goldens of the originals.

A golden says how its images are moved after they are drawn. Some hold what the original
made of images as they are drawn, in [0, 1], whatever they say: those are told by their
outputs, which no other images give, and their certificates say so.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

from detjax import models
from detjax.models.pixelwise import enlarged
from detjax.nn.images import NORMALIZED
from detjax.parity import certificate, goldens
from detjax.parity import segmentation_inputs as inputs
from detjax.parity.certificate import Certificate, Training
from detjax.parity.goldens import Golden, joined, summary, summary_error
from detjax.types import Inputs, Model
from detjax.weights import convert

Kept = Mapping[str, Any]  # what modules return, by their names


class Original(NamedTuple):
    """What a golden's file does not say of its model."""

    # Our losses, by the original's names.
    losses: Mapping[str, str]
    # No dropout, the norms' running statistics, whatever the model.
    settings: Mapping[str, Any]
    # (what modules return) -> outputs by the original's names, channels last
    inner: Callable[[Kept], dict[str, Any]] = lambda kept: {}


def _first(kept: Kept, *path: str) -> Any:
    """What the module at `path` returned."""
    for part in path:
        kept = kept[part]
    return kept["__call__"][0]


def _pspnet(kept):
    return {
        "ppm": _first(kept, "ppm"),
        "out_before_resizing": _first(kept, "cls"),
        "aux_before_resizing": _first(kept, "aux"),
    }


def _plus(kept):
    features = _first(kept, "backbone")
    return {
        "features": features[-1],
        "low_level": features[0],
        "aspp": _first(kept, "aspp"),
        "decoder": _first(kept, "decoder"),
    }


_FROZEN = {"backbone": {"norm": "frozen"}, "norm": "frozen"}
_AUXILIARY = _FROZEN | {"auxiliary": {"dropout": 0.0}}
_TORCHVISION = {"out": "pixels", "aux": "auxiliary"}
_V3 = Original(_TORCHVISION, _AUXILIARY | {"aspp": {"dropout": 0.0}})
_FCN = Original(_TORCHVISION, _AUXILIARY | {"dropout": 0.0})
_PSPNET = Original(
    {"main": "pixels", "aux": "auxiliary"}, _AUXILIARY | {"dropout": 0.0}, _pspnet
)
_PLUS = Original(
    {"ce": "pixels"},
    _FROZEN | {"aspp": {"dropout": 0.0}, "decoder": {"dropout": (0.0, 0.0)}},
    _plus,
)
MODELS: Mapping[str, Original] = MappingProxyType(
    {
        "fcn_resnet50": _FCN,
        "fcn_resnet101": _FCN,
        "deeplabv3_resnet50": _V3,
        "deeplabv3_resnet101": _V3,
        "deeplabv3_mobilenet_v3_large": _V3,
        "lraspp_mobilenet_v3_large": Original({"out": "pixels"}, _FROZEN),
        "pspnet50": _PSPNET,
        "pspnet101": _PSPNET,
        "deeplabv3plus_resnet101": _PLUS,
        "deeplabv3plus_xception": _PLUS,
    }
)
# The source of names, by the first word of where a golden comes from.
ORIGINS = {
    "torchvision": "torchvision",
    "hszhao/semseg": "semseg",
    "jfzhang95/pytorch-deeplab-xception": "jfzhang",
}
SOURCE = "torchvision"  # of our own goldens


# Outputs of other images are further from the original's than any rounding.
_OTHER = 1e-3


class Answers(NamedTuple):
    """What our model has for a golden, in the original's layout."""

    parameters: int
    outputs: dict[str, np.ndarray]
    training: Training | None
    drawn: bool  # whether the images are as they are drawn, against what the file says


def certify(golden: Golden) -> Certificate:
    """`golden` against detjax: weights, maps, classes of pixels, losses, gradients.

    Raises ValueError where names or shapes do not fit.
    """
    facts, ours = golden.facts, _answers(golden)
    losses = gradients = None
    if ours.training:
        losses, gradients = certificate.training_errors(
            ours.training, facts["train"], MODELS[facts["model"]].losses
        )
    moved = None
    if "argmax" in facts:
        moved = inputs.moved(ours.outputs["out"], facts["argmax"])
    return Certificate(
        golden.name,
        ours.parameters,
        facts["parameters"],
        errors(ours.outputs, facts),
        losses,
        gradients,
        moved=moved,
        images="as drawn" if ours.drawn else None,
    )


def answers(golden: Golden) -> dict[str, Any]:
    """What a golden of this source holds, by our own code."""
    ours = _answers(golden)
    made = {
        "parameters": ours.parameters,
        "outputs": {name: summary(value) for name, value in ours.outputs.items()},
        "argmax": inputs.winners(ours.outputs["out"]),
    }
    if ours.training:
        made["train"] = {**golden.facts["train"], **ours.training.facts()}
    return made


def shapes(facts: dict[str, Any]) -> tuple[Any, Any]:
    """Shapes of the parameters and of the state of a golden's model."""
    images = inputs.images(facts["input"])
    return jax.eval_shape(_model(facts).init, jax.random.key(0), images)


def _model(facts: dict[str, Any]) -> Model:
    name = facts["model"]
    settings = {**MODELS[name].settings, "pixels": NORMALIZED}
    if "outputs" in facts:
        settings["num_classes"] = facts["outputs"]["out"]["shape"][1]
    return models.make(name, **joined(settings, goldens.settings(facts)))


def _answers(golden: Golden) -> Answers:
    facts, model = golden.facts, _model(golden.facts)
    origin, *_ = facts["source"].split()
    source = ORIGINS.get(origin, SOURCE)
    params, state, _ = convert.load(golden.state_dict, *shapes(facts), source=source)
    forward = _forward(model, MODELS[facts["model"]].inner)
    images, found, drawn = on_images(
        facts, lambda images: forward(params, state, images)
    )
    training = None
    if "train" in facts:
        batch = inputs.batch(facts)
        training = certificate.training(
            model,
            params,
            state,
            inputs.with_images(batch, images),
            names=MODELS[facts["model"]].losses,
            source=source,
        )
    return Answers(certificate.size(params), found, training, drawn)


def on_images(
    facts: dict[str, Any], forward: Callable[[np.ndarray], dict[str, Any]]
) -> tuple[np.ndarray, dict[str, np.ndarray], bool]:
    """The images of a golden, `forward`'s outputs, and whether these are as drawn.

    Outputs have channels first. They are as drawn only where not all outputs
    agree on the images that the file says, and all do on those.
    """
    described = facts["input"]
    images = inputs.images(described)
    found = _layout(forward(images))
    if "outputs" not in facts or max(errors(found, facts).values()) < _OTHER:
        return images, found, False
    plain = goldens.draw_images(described["shape"], described["seed"])
    other = _layout(forward(plain))
    if max(errors(other, facts).values()) < _OTHER:
        return plain, other, True
    return images, found, False


def errors(found: dict[str, np.ndarray], facts: dict[str, Any]) -> dict[str, float]:
    """The error of every output that the golden holds."""
    expected = facts["outputs"]
    if not found.keys() >= expected.keys():
        raise ValueError(f"outputs are {[*found]}, the original's {[*expected]}")
    return {name: summary_error(found[name], v) for name, v in expected.items()}


def _layout(found: dict[str, Any]) -> dict[str, np.ndarray]:
    """Outputs with channels first."""
    return {k: np.moveaxis(v, -1, 1) for k, v in jax.device_get(found).items()}


def _forward(model: Model, inner: Callable[[Kept], dict[str, Any]]):
    """(params, state, images) -> every output by the original's name; compiled."""

    @jax.jit
    def forward(params, state, images):
        maps, made = model.net.apply(
            {"params": params, **state},
            images,
            train=True,
            capture_intermediates=True,
            mutable=[*state, "intermediates"],
        )
        corners = model.predict(params, state, Inputs(images)).corners
        whole = [enlarged(x, images.shape[1:3], corners) for x in maps]
        named = dict(zip(("out", "aux"), whole, strict=False))
        return named | inner(made["intermediates"])

    return forward
