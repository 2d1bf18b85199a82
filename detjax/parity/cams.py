"""Class activation maps, by goldens of pytorch-grad-cam.

Of classifiers for a class of each image, of torchvision's detectors for one detection.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from detjax.explain import layers
from detjax.explain.cam import Maps, classic, eigen, gradients, joined, score
from detjax.explain.cam.scaled import After, values_of
from detjax.nn.observe import IMAGES, site
from detjax.parity import certificate, classifiers, detector_outputs, detectors, goldens
from detjax.parity.certificate import Certificate
from detjax.parity.detector_inputs import pad
from detjax.parity.goldens import Golden, summary, summary_error
from detjax.types import Array, Inputs, Model, Scores, Spec
from detjax.weights import convert

SOURCE = "torchvision"  # of parameters' names
ORIGINS = ("grad-cam",)


class Originals:
    """The originals' names, with the version of whom they are of before them."""

    def __contains__(self, name: object) -> bool:
        before, _, last = str(name).rpartition(" ")
        known = last in classifiers.MODELS or last in detectors.MODELS
        return known and bool(re.fullmatch(r"torchvision [\d.]+|maps of", before))


MODELS = Originals()
METHODS = {
    "GradCAM": gradients.grad_cam,
    "GradCAMPlusPlus": gradients.grad_cam_plus_plus,
    "XGradCAM": gradients.xgrad_cam,
    "HiResCAM": gradients.hires_cam,
    "LayerCAM": gradients.layer_cam,
}
# The network's own ReLU overwrites what pytorch-grad-cam has recorded of these layers.
OVERWRITTEN: dict[str, After] = {"features.norm5": "relu"}
PYRAMID = "the feature pyramid"


class Case(NamedTuple):
    """A golden's model with all that is asked of it."""

    model: Model
    params: Any
    state: Any
    inputs: Inputs
    size: tuple[int, int]  # of the maps
    quantity: Callable[[Any], Array]
    targets: np.ndarray  # [b 1]: the classes of a classifier, places of detections


def certify(golden: Golden) -> Certificate:
    """`golden` against our maps.

    Raises ValueError where names or shapes do not fit, or the detection is not found.
    """
    facts, case = golden.facts, _case(golden)
    errors: dict[str, float] = {}
    for name, expected in facts["methods"].items():
        found = _maps(case, facts, name, len(_shaped(expected)))
        errors |= {
            f"{name}: {part}": error
            for part, error in _errors(case, facts, found, expected).items()
        }
    if "outputs" in facts:
        logits = _answers(case).logits
        errors["logits"] = summary_error(logits, facts["outputs"]["logits"])
    if "score" in facts.get("detection", {}):
        ours = float(_answers(case).scores[0, case.targets[0, 0]])
        errors["score"] = goldens.relative(ours, facts["detection"]["score"])
    return Certificate(
        golden.name, certificate.size(case.params), facts["parameters"], errors
    )


def answers(golden: Golden) -> dict[str, Any]:
    """What a golden of this source holds, by our own code."""
    facts, case = golden.facts, _case(golden)
    found: dict[str, Any] = {"parameters": certificate.size(case.params), "methods": {}}
    for name in facts["methods"]:
        maps = _maps(case, facts, name, len(case.inputs.images))
        held: dict[str, Any] = {
            "raw": [np.asarray(x)[:, 0].tolist() for x in maps.raw.values()],
            "map": summary(np.asarray(maps.maps)[:, 0]),
        }
        if maps.weights:
            held["weights"] = [
                summary(np.asarray(x)[:, 0]) for x in maps.weights.values()
            ]
        found["methods"][name] = held
    ours = _answers(case)
    if "detection" not in facts:
        return {**found, "outputs": {"logits": summary(ours.logits)}}
    place = int(case.targets[0, 0])
    [one] = detector_outputs.detections(ours, pad(_of_detector(facts)))
    described = {k: x[place].tolist() for k, x in one.items()}
    names = {"boxes": "box", "labels": "label", "scores": "score"}
    return {
        **found,
        "detection": {"index": place} | {names[k]: v for k, v in described.items()},
    }


def shapes(facts: dict[str, Any]) -> tuple[Any, Any]:
    """Shapes of the parameters and of the state of a golden's model."""
    if "detection" in facts:
        return detectors.shapes(_of_detector(facts))
    return classifiers.shapes(_plain(facts))


def _case(golden: Golden) -> Case:
    return (_detector if "detection" in golden.facts else _classifier)(golden)


def _classifier(golden: Golden) -> Case:
    facts = _plain(golden.facts)
    net: Any = classifiers._net(facts)
    params, state, *_ = convert.load(
        golden.state_dict, *classifiers.shapes(facts), source=SOURCE
    )
    targets = np.asarray(facts["targets"], np.int32)[:, None]

    def predict(params: Any, state: Any, inputs: Inputs) -> Scores:
        images = site(IMAGES, jnp.asarray(inputs.images))
        logits: Any = net.apply({"params": params, **state}, images)
        return Scores(jax.nn.softmax(logits), logits)

    def quantity(answers: Scores) -> Array:
        return jnp.take_along_axis(answers.logits, targets[: len(answers.scores)], -1)

    spec = Spec("classification", net.num_classes, groups={"head": net.head})
    model = Model(spec, net.init, _no_loss, predict, net)
    images = classifiers.draw(facts["input"])
    size = images.shape[1:3]
    return Case(model, params, state, Inputs(images), size, quantity, targets)


def _detector(golden: Golden) -> Case:
    facts = _of_detector(golden.facts)
    model, padded = detectors.maker(facts)(), pad(facts)
    params, state, *_ = convert.load(
        golden.state_dict,
        *detectors.shapes(facts),
        source=SOURCE,
        classes=model.spec.outputs,
    )
    inputs = padded.inputs
    found = jax.device_get(jax.jit(model.predict)(params, state, inputs))
    [ours] = detector_outputs.detections(found, padded)
    wanted = facts["detection"]
    if "box" not in wanted:  # one of our own that is not filled in yet
        place = wanted["index"]
    else:
        expected = {
            "boxes": np.array([wanted["box"]]),
            "labels": np.array([wanted["label"]]),
            "scores": np.array([wanted["score"]]),
        }
        [twin] = certificate.twins(ours, expected, detector_outputs.WITHIN)
        if twin < 0:
            raise ValueError(f"there is no detection like {wanted}")
        place = int(np.flatnonzero(found.valid[0])[twin])
    targets = np.array([[place]], np.int32)

    def quantity(answers: Any) -> Array:
        return answers.scores[:, place, None]

    h, w = facts["input"][0]["shape"][1:3]
    return Case(model, params, state, inputs, (h, w), quantity, targets)


def _maps(case: Case, facts: dict[str, Any], name: str, count: int) -> Maps:
    """The maps by the golden's method `name`, of the first `count` images."""
    method, _, said = name.partition(" of ")
    names = said.split(", ") if said else [facts["layer"].split()[0]]
    inputs = jax.tree.map(lambda x: x[:count], case.inputs)
    weights = case.params, case.state
    after = OVERWRITTEN.get(names[0], "")
    how: dict[str, Any] = {"size": case.size}
    predict = case.model.predict
    if names == [PYRAMID]:
        call = _of_pyramid(predict, case.size)
    else:
        known = layers.shapes(predict, *weights, inputs)
        # Our convolutions of a pyramid have a name within the original's.
        names = [n if n in known else f"{n}.0" for n in names]
        if method in METHODS:
            call = gradients.maps(
                predict, names, case.quantity, METHODS[method], after=after, **how
            )
        elif method == "EigenCAM":
            call = eigen.maps(predict, names, after=after, **how)
        elif method == "ScoreCAM":
            call = score.maps(predict, names, case.quantity, after=after, **how)
        elif method == "CAM":
            pooled = classic.pooled(case.model, *weights, inputs)
            call = classic.maps(predict, pooled, case.targets[:count], **how)
        else:
            raise ValueError(f"no method is called {name}")
    return jax.device_get(jax.jit(call)(*weights, inputs))


def _of_pyramid(predict: layers.Predict, size: tuple[int, int]) -> Callable[..., Maps]:
    """Eigen-CAM of torchvision's pyramid, whose last level is every other cell."""

    def call(params: Any, state: Any, inputs: Inputs) -> Maps:
        known = layers.shapes(predict, params, state, inputs, r"^backbone\.fpn:\d+$")
        _, held = layers.seen(predict, [*known])(params, state, inputs)
        held["pool"] = held[[*known][-1]][:, ::2, ::2]
        values = eigen.side_by_side(held)
        raw = {eigen.TOGETHER: jax.vmap(eigen.eigen_cam)(values)[:, None]}
        return Maps(joined(raw, size), raw, {})

    return call


def _errors(
    case: Case, facts: dict[str, Any], found: Maps, expected: dict[str, Any]
) -> dict[str, float]:
    """The error of each thing that a golden has of a method."""
    raw = {name: np.asarray(x)[:, 0] for name, x in found.raw.items()}
    held = dict(zip(raw, expected["raw"], strict=True))
    signless = "sign_note" in expected
    if signless:
        raw = {
            name: x * _signs(x, held[name])[:, None, None] for name, x in raw.items()
        }
    errors = {f"raw {k}": _error(x, held[k]) for k, x in raw.items()}
    for (name, x), one in zip(
        found.weights.items(), expected.get("weights", ()), strict=False
    ):
        errors[f"weights {name}"] = _error(np.asarray(x)[:, 0], one)
    for part, sign in (("map", 1), ("map_of_negated", -1)):
        if part in expected:
            signed = {name: sign * x for name, x in raw.items()}
            ours = joined(signed, case.size) if signless else found.maps[:, 0]
            errors[part] = _error(np.asarray(ours), expected[part])
    if {"activation", "activation_min", "singular_values"} & expected.keys():
        errors |= _of_values(case, facts, expected)
    return errors


def _of_values(
    case: Case, facts: dict[str, Any], expected: dict[str, Any]
) -> dict[str, float]:
    """Errors of what a golden says of the layer itself."""
    name = facts["layer"].split()[0]
    read = jax.jit(layers.seen(case.model.predict, [name]))
    _, held = read(case.params, case.state, case.inputs)
    values = np.asarray(values_of(held[name], OVERWRITTEN.get(name, "")), np.float64)
    errors = {}
    if "activation" in expected:
        errors["activation"] = _error(
            np.moveaxis(values, -1, 1), expected["activation"]
        )
    if "activation_min" in expected:
        apart = abs(values.min() - expected["activation_min"])
        errors["activation_min"] = float(apart / values.std())
    if "singular_values" in expected:
        wanted = np.array(expected["singular_values"])
        flat = values.reshape(len(values), -1, values.shape[-1])
        flat = flat - flat.mean(axis=1, keepdims=True)
        ours = np.linalg.svd(flat, compute_uv=False)[: len(wanted), : wanted.shape[1]]
        errors["singular_values"] = float(np.abs(ours / wanted - 1).max())
    return errors


def _error(value: np.ndarray, held: Any) -> float:
    """The largest error in units of the std of what a golden holds whole or in part.

    Raises ValueError where the shapes differ.
    """
    if isinstance(held, dict) and "index" in held:
        return summary_error(value, held)
    wanted = np.array(held["value"] if isinstance(held, dict) else held, np.float64)
    if value.shape != wanted.shape:
        raise ValueError(f"shape {value.shape}, the original has {wanted.shape}")
    return float(np.abs(value - wanted).max() / max(wanted.std(), 1e-12))


def _signs(value: np.ndarray, held: Any) -> np.ndarray:
    """The sign [b] by which each map of `value` [b h w] is like the golden's."""
    ours, each = value.reshape(-1), value[0].size
    if isinstance(held, dict) and "index" in held:
        index, wanted = np.array(held["index"]), np.array(held["value"])
    else:
        whole = held["value"] if isinstance(held, dict) else held
        index, wanted = np.arange(value.size), np.array(whole).reshape(-1)
    alike = np.bincount(index // each, ours[index] * wanted, len(value))
    return np.where(alike < 0, -1.0, 1.0)


def _shaped(expected: dict[str, Any]) -> range:
    """The images of which a golden has a method's maps."""
    held = expected.get("map", expected["raw"][0])
    return range(held["shape"][0] if isinstance(held, dict) else len(held))


def _answers(case: Case) -> Any:
    call = jax.jit(case.model.predict)
    return jax.device_get(call(case.params, case.state, case.inputs))


def _plain(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts of a classifier's golden with the name that its source knows."""
    return {**facts, "source": SOURCE, "model": facts["model"].split()[-1]}


def _of_detector(facts: dict[str, Any]) -> dict[str, Any]:
    """The same of a detector's, whose images have a list of their own."""
    return {**_plain(facts), "input": [facts["input"]]}


def _no_loss(*_: Any) -> Any:
    raise NotImplementedError("goldens of maps have no loss")
