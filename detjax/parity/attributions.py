"""Attributions and influence, by goldens of captum.

A file names its methods, and says in words what their settings are: "layer NAME",
"unit (channel, y, x)", "baseline NUMBER", "N steps" and the quadrature. Maps are in the
original's layout, channels first.

A gradient jumps where rounding moves a value across a ReLU, or lets another place win a
pooling window, so that float32 says little of a method: in float32 the original itself
is further than 1e-4 of a map's std from what it has in float64. A certificate is
computed in float64, as the values of the files were, and the bound holds everywhere.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from detjax import backbones
from detjax.explain import attribution, influence, layers, occlusion, paths, rectified
from detjax.models import classifier
from detjax.nn.images import NORMALIZED
from detjax.parity import classifiers, goldens
from detjax.parity.certificate import Certificate, size
from detjax.parity.goldens import Golden, summary, summary_error
from detjax.types import Array, Inputs

ORIGINS = {"captum": "torchvision"}
SOURCE = "torchvision"
KIND = "attributions"
# The last word is the network's.
MODELS = {
    f"{start} {name}": name
    for name in backbones.FAMILIES
    for start in ("torchvision 0.27.1", KIND)
}


class Settings(NamedTuple):
    """What a method's note says of it."""

    layer: str | None = None  # of the backbone
    unit: tuple[int, ...] = ()  # channels first
    baseline: float = 0.0
    steps: int = 50
    rule: paths.Rule = "gausslegendre"
    window: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()


class Net(NamedTuple):
    """A golden's network, and what is explained of it."""

    predict: Callable[..., Any]
    params: Any
    state: Any
    inputs: Inputs
    quantity: Callable[[Any], Array]
    names: tuple[str, ...]  # of layers, in the order of computation
    noise: np.ndarray | None


def certify(golden: Golden) -> Certificate:
    """`golden` against detjax: logits, and every method's map and its sums.

    Raises ValueError where names or shapes do not fit, or a method is not known.
    """
    facts = golden.facts
    with jax.enable_x64(True):
        net = _net(golden)
        errors = {"logits": summary_error(_logits(net), facts["outputs"]["logits"])}
        for name, expected in facts["methods"].items():
            found = computed(net, name, expected.get("note", ""))
            errors[name] = summary_error(found, expected["map"])
    return Certificate(golden.name, size(net.params), facts["parameters"], errors)


def answers(golden: Golden) -> dict[str, Any]:
    """What a golden of this source holds, by our own code."""
    methods = {}
    with jax.enable_x64(True):
        net = _net(golden)
        for name, expected in golden.facts["methods"].items():
            found = computed(net, name, expected.get("note", ""))
            total = found.reshape(len(found), -1).sum(axis=1).tolist()
            methods[name] = {**expected, "map": summary(found), "sum": total}
        logits = summary(_logits(net))
    count = size(net.params)
    return {"parameters": count, "outputs": {"logits": logits}, "methods": methods}


def shapes(facts: dict[str, Any]) -> tuple[Any, Any]:
    """Shapes of the parameters and of the state of a golden's model."""
    return classifiers.shapes(_bare(facts))


def computed(net: Net, method: str, note: str) -> np.ndarray:
    """The map of a method by its original's name, in the original's layout.

    Raises ValueError for a method that is not known.
    """
    kind = method.split()[0]
    variant = method[len(kind) :].strip()
    if kind not in METHODS:
        raise ValueError(f"no method is called {method}; there are {[*METHODS]}")
    given = described(note, net.names)
    call = METHODS[kind](net, given, variant)
    return _channels_first(np.asarray(jax.jit(call)(net.params, net.state, net.inputs)))


def described(note: str, names: tuple[str, ...]) -> Settings:
    """What a method's `note` says; `names` are those of the network's layers."""
    found: dict[str, Any] = {}
    if named := re.search(r"layer ([\w.]+)", note):
        found["layer"] = layer_of(named[1].rstrip("."), names)
    if at := re.search(r"unit \(([\d, ]+)\)", note):
        found["unit"] = _numbers(at[1])
    if from_it := re.search(r"baseline (?:image )?(-?[\d.]*\d)", note):
        found["baseline"] = float(from_it[1])
    if steps := re.search(r"(\d+) steps", note):
        found["steps"] = int(steps[1])
    if points := re.search(r"of (\d+) points", note):
        # Of the points of conductance, which has an interval between two of them.
        found["steps"] = int(points[1]) - 1
    if rule := re.search(r"riemann_\w+|Gauss-Legendre", note):
        found["rule"] = "gausslegendre" if "Gauss" in rule[0] else rule[0]
    for name in ("window", "stride"):
        if sides := re.search(rf"{name} \(([\d, ]+)\)", note):
            c, *rest = _numbers(sides[1])
            found[name] = (*rest, c)
    return Settings(**found)


def layer_of(name: str, names: tuple[str, ...]) -> str:
    """Our name of the original's layer: what it, or the last layer in it, returns.

    Raises ValueError where there is none.
    """
    full = f"backbone.{name}"
    inner = [each for each in names if each == full or each.startswith(full + ".")]
    if not inner:
        raise ValueError(f"the network has no layer {name}")
    return full if full in inner else inner[-1]


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(x) for x in text.split(","))


def _plain(net, given, variant):
    return attribution.gradient(net.predict, net.quantity)


def _times_input(net, given, variant):
    return attribution.times_input(net.predict, net.quantity)


def _integrated(net, given, variant):
    layer = given.layer or layers.IMAGES
    line = given.rule, given.steps
    call = paths.integrated(net.predict, net.quantity, layer, *line)
    return lambda *args: call(*args, given.baseline)


def _occluded(net, given, variant):
    how = given.window, given.stride, given.baseline
    return occlusion.occlusion(net.predict, net.quantity, *how)


def _internal(net, given, variant):
    how = given.layer, given.rule, given.steps
    call = influence.internal(net.predict, net.quantity, *how)
    return lambda *args: call(*args, given.baseline)


def _conductance(net, given, variant):
    how = given.layer, given.rule, given.steps
    call = influence.conductance(net.predict, net.quantity, *how)
    return lambda *args: call(*args, given.baseline)


def _through_unit(net, given, variant):
    how = given.layer, _place(given.unit), given.rule, given.steps
    call = influence.through_unit(net.predict, net.quantity, *how)
    return lambda *args: call(*args, given.baseline)


def _of_unit(net, given, variant):
    return influence.of_unit(net.predict, given.layer, _place(given.unit))


def _grad_cam(net, given, variant):
    call = attribution.grad_cam(net.predict, net.quantity, given.layer)
    return lambda *args: call(*args)[..., None]


def _guided(net, given, variant):
    return attribution.gradient(net.predict, net.quantity, through=rectified.guided)


def _deconvnet(net, given, variant):
    return attribution.gradient(net.predict, net.quantity, through=rectified.deconvnet)


def _guided_grad_cam(net, given, variant):
    pixels, coarse = _guided(net, given, variant), _grad_cam(net, given, variant)

    def call(*args):
        found = pixels(*args)
        laid = jax.nn.relu(coarse(*args))
        return found * nearest(laid, found.shape[2:4])

    return call


def nearest(maps: Array, side: tuple[int, int]) -> Array:
    """`maps` [q b h w c] at `side` by the nearest neighbour to the upper left."""
    rows, columns = (
        jnp.arange(new) * old // new
        for new, old in zip(side, maps.shape[2:4], strict=True)
    )
    return maps[:, :, rows][:, :, :, columns]


def _smoothed(field):
    def made(net, given, variant):
        name = {"": field, "absolute": "absolute", "squared": "squared"}[variant]
        call: Any = attribution.smoothed(net.predict, net.quantity)
        return lambda *args: getattr(call(*args, net.noise), name)

    return made


METHODS: dict[str, Callable[..., Any]] = {
    "Saliency": _plain,
    "InputXGradient": _times_input,
    "IntegratedGradients": _integrated,
    "LayerIntegratedGradients": _integrated,
    "Occlusion": _occluded,
    "InternalInfluence": _internal,
    "LayerConductance": _conductance,
    "NeuronConductance": _through_unit,
    "NeuronGradient": _of_unit,
    "LayerGradCam": _grad_cam,
    "GuidedBackprop": _guided,
    "Deconvolution": _deconvnet,
    "GuidedGradCam": _guided_grad_cam,
    "SmoothGrad": _smoothed("mean"),
    "VarGrad": _smoothed("variance"),
}


def _place(unit: tuple[int, ...]) -> tuple[int, ...]:
    """The place of a unit that is given channels first."""
    return (*unit[1:], unit[0])


def _channels_first(found: np.ndarray) -> np.ndarray:
    """The maps [b ...] of the one quantity, channels before rows."""
    [found] = found
    return np.moveaxis(found, -1, 1) if found.ndim == 4 else found


def _logits(net: Net) -> np.ndarray:
    return np.asarray(jax.jit(net.predict)(net.params, net.state, net.inputs).logits)


def _bare(facts: dict[str, Any]) -> dict[str, Any]:
    """The golden as one of its backbone."""
    return {**facts, "model": MODELS[facts["model"]], "source": "torchvision"}


def _net(golden: Golden) -> Net:
    facts = _bare(golden.facts)
    params, state = classifiers.loaded(golden._replace(facts=facts))
    classes = facts["outputs"]["logits"]["shape"][-1]
    settings = {k: v for k, v in goldens.settings(facts).items() if k != "num_classes"}
    # Not by `models.make`, which has no float64 to offer.
    kind: Any = "float64"
    normalised: Any = NORMALIZED
    model = classifier.classifier(
        num_classes=classes,
        backbone=classifier.Backbone(facts["model"], **settings),
        pixels=normalised,
        dtype=kind,
    )
    params, state, inputs = jax.tree.map(
        lambda x: jnp.asarray(x, jnp.float64),
        (
            {"backbone": params},
            {kind: {"backbone": held} for kind, held in state.items()},
            Inputs(classifiers.draw(facts["input"])),
        ),
    )
    targets = jnp.asarray(facts["targets"])[:, None]

    def quantity(found: Any) -> Array:
        return jnp.take_along_axis(found.logits, targets, axis=1)

    names = layers.shapes(model.predict, params, state, inputs)
    return Net(
        model.predict,
        params,
        state,
        inputs,
        quantity,
        tuple(names),
        _noise(golden.facts),
    )


def _noise(facts: dict[str, Any]) -> np.ndarray | None:
    """The noise [s b h w 3] that a golden's words describe; None without any."""
    words = facts.get("noise")
    if words is None:
        return None
    scale = float(re.match(r"([\d.]+) \*", words)[1])  # type: ignore[index]
    mark = int(re.search(r"\[seed, (\d+)\]", words)[1])  # type: ignore[index]
    count = int(re.search(r"normal\(\((\d+),", words)[1])  # type: ignore[index]
    b, h, w, c = facts["input"]["shape"]
    rng = np.random.default_rng([facts["seed"], mark])
    drawn = rng.standard_normal((count, b, c, h, w), np.float32)
    return np.moveaxis(np.float32(scale) * drawn, 2, -1)
