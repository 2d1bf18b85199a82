"""FCN-32s to 8s and SegNet, by goldens of a port and of the authors' prototxt."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from detjax import models
from detjax.nn.images import NORMALIZED
from detjax.parity import certificate, goldens, segmentation_inputs
from detjax.parity.certificate import Certificate
from detjax.parity.goldens import Golden, relative, summary, summary_error
from detjax.parity.segmenters import Answers, errors, on_images
from detjax.types import Model
from detjax.weights import convert

# Both are without dropout in goldens, and normalise by running statistics.
_FCN = {"dropout": 0.0, "loss": {"mean_over": "images"}}
_PIXELS = {"loss": {"mean_over": "pixels"}}
SETTINGS: dict[str, dict[str, Any]] = {
    "fcn32s": _FCN,
    "fcn16s": _FCN,
    "fcn8s": _FCN,
    "segnet": {"backbone": {"norm": "frozen"}, **_PIXELS},
    "segnet_basic": {"norm": "frozen", **_PIXELS},
}
MODELS = {name: name for name in SETTINGS}
# The source of names, by the first word of where a golden comes from.
ORIGINS = {"wkentaro/pytorch-fcn": "fcn", "alexgkendall/SegNet-Tutorial": "segnet"}
SOURCE = "segnet"  # of our own goldens
LOSSES = {"ce": "pixels"}


def certify(golden: Golden) -> Certificate:
    """`golden` against our model: weights, outputs, losses, gradients.

    Kernels that begin as bilinear interpolation are among the outputs. Raises
    ValueError where names or shapes do not fit.
    """
    facts = golden.facts
    ours = _answers(golden)
    moved = None
    if "argmax" in facts:
        moved = segmentation_inputs.moved(ours.outputs["out"], facts["argmax"])
    losses, gradients = certificate.training_errors(
        ours.training, facts["train"], LOSSES
    )
    return Certificate(
        golden.name,
        ours.parameters,
        facts["parameters"],
        errors(ours.outputs, facts) | _bilinear_errors(facts),
        losses,
        gradients,
        moved=moved,
        images="as drawn" if ours.drawn else None,
    )


def answers(golden: Golden) -> dict[str, Any]:
    """What a golden of this source holds, by our own code."""
    ours = _answers(golden)
    return {
        "parameters": ours.parameters,
        "outputs": {name: summary(value) for name, value in ours.outputs.items()},
        "argmax": segmentation_inputs.winners(ours.outputs["out"]),
        "train": {**golden.facts["train"], **ours.training.facts()},
    }


def shapes(facts: dict[str, Any]) -> tuple[Any, Any]:
    """Shapes of the parameters and of the state of a golden's model."""
    image = jnp.zeros(facts["input"]["shape"])
    return jax.eval_shape(_model(facts).init, jax.random.key(0), image)


def source_of(facts: dict[str, Any]) -> str:
    """The source of a golden's names."""
    origin, *_ = facts["source"].split()
    return ORIGINS.get(origin, SOURCE)


def _model(facts: dict[str, Any], **changes: Any) -> Model:
    stages = {**SETTINGS[facts["model"]], "pixels": NORMALIZED, **changes}
    if "batch_norm_eps" in facts:
        stages["norm_eps"] = facts["batch_norm_eps"]
    stages["num_classes"] = facts["train"]["target"]["classes"]
    joined = goldens.joined(stages, goldens.settings(facts))
    return models.make(MODELS[facts["model"]], **joined)


def _answers(golden: Golden) -> Answers:
    facts, model = golden.facts, _model(golden.facts)
    source = source_of(facts)
    params, state, _ = convert.load(golden.state_dict, *shapes(facts), source=source)
    images, found, drawn = on_images(
        facts, lambda images: _outputs(facts, model, params, state, images)
    )
    batch = segmentation_inputs.batch(facts, facts.get("class_weighting"))
    training = certificate.training(
        model,
        params,
        state,
        segmentation_inputs.with_images(batch, images),
        names=LOSSES,
        source=source,
    )
    return Answers(certificate.size(params), found, training, drawn)


def _outputs(facts, model, params, state, images) -> dict[str, Any]:
    """Every output that the golden has, by the original's names."""

    def applied(net, params):
        @jax.jit
        def run(params, state, images):
            (out,), kept = net.apply(
                {"params": params, **state},
                images,
                capture_intermediates=True,
                mutable=["intermediates"],
            )
            inner = {
                name: _kept(value)
                for name, value in kept["intermediates"].items()
                if name in facts.get("outputs", {})
            }
            return {"out": out, **inner}

        return jax.device_get(run(params, state, images))

    found = applied(model.net, params)
    if "out_bilinear" in facts.get("outputs", {}):
        begun = {**params, **_begun(facts)}
        found["out_bilinear"] = applied(model.net, begun)["out"]
    if "out_atonce" in facts.get("outputs", {}):
        at_once = _model(facts, at_once=True)
        found["out_atonce"] = applied(at_once.net, params)["out"]
    return found


def _kept(value: Any) -> Any:
    """An output that was captured, of a module or sown."""
    return (value["__call__"] if isinstance(value, dict) else value)[0]


def _begun(facts) -> dict[str, Any]:
    """The transposed convolutions as a model's initialisation has them, by layer."""
    model = _model(facts)

    @jax.jit
    def init(images):
        params, _ = model.init(jax.random.key(0), images)
        return {name: held for name, held in params.items() if "upscore" in name}

    return init(jnp.zeros(facts["input"]["shape"]))


def _bilinear_errors(facts) -> dict[str, float]:
    """Errors of those kernels: of a class's own, and of the sum over all."""
    if "bilinear_kernels" not in facts:
        return {}
    found, begun = {}, _begun(facts)
    for name, expected in facts["bilinear_kernels"].items():
        kernel = np.asarray(begun[name.removesuffix(".weight")]["kernel"], np.float64)
        found[name] = max(
            summary_error(kernel[..., 0, 0], expected["diagonal"]),
            relative(kernel.sum(), expected["sum"]),
        )
    return found
