"""Classifiers: logits, maps inside, losses and gradients, by goldens of the originals.

Their modules have the originals' names, so the original's name of an output finds what
the module called so returns. A net that computes such an output in no module of its own
sows it under that name; where a module has the name but returns something else, under
the name with "." after it.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from detjax import backbones
from detjax.backbones.lenet import LeNet5
from detjax.models.classifier import Loss
from detjax.parity import certificate, goldens
from detjax.parity.certificate import Certificate, size
from detjax.parity.goldens import Golden, summary, summary_error
from detjax.types import Batch, Inputs, Label, Model, Spec, View
from detjax.weights import convert

# Our names, by those of goldens, where they differ.
OTHERWISE = {"mobilenetv1_100": "mobilenet_v1"}
MODELS = {name: name for name in backbones.FAMILIES} | OTHERWISE
# The source of names, by the first word of where a golden comes from.
ORIGINS = {
    "torchvision": "torchvision",
    "timm": "timm",
    "megvii-model/ShuffleNet-Series": "megvii",
    "Caffe's": "caffe",
    "mavenlin/cuda-convnet": "caffe",
    "the": "caffe",
    "LeCun": "lenet",
}
SOURCE = "torchvision"  # of our own goldens
# How labels are compared, by the original's name of the loss.
LOSSES = {
    "ce": Loss(),
    "mean_of_right_class": Loss(competition=False),
    "with_competition": Loss(rubbish=0.1),
}


def certify(golden: Golden) -> Certificate:
    """`golden` against our backbone: weights, outputs, losses, gradients.

    Raises ValueError where names or shapes do not fit, or an output is not known.
    """
    facts = golden.facts
    params, state = loaded(golden)
    held = facts["outputs"]
    found = outputs(_net(facts), params, state, draw(facts["input"]), [*held])
    losses = gradients = None
    if "train" in facts:
        train = facts["train"]
        names = {name: name for name in train["losses"]}
        losses, gradients = certificate.training_errors(
            _training(facts, params, state), train, names
        )
    return Certificate(
        golden.name,
        size(params),
        facts["parameters"],
        {name: summary_error(found[name], held[name]) for name in held},
        losses,
        gradients,
    )


def answers(golden: Golden) -> dict[str, Any]:
    """What a golden of this source holds, by our own code."""
    facts = golden.facts
    params, state = loaded(golden)
    found = outputs(_net(facts), params, state, draw(facts["input"]), ["logits"])
    return {
        "parameters": size(params),
        "outputs": {"logits": summary(found["logits"])},
    }


def shapes(facts: dict[str, Any]) -> tuple[Any, Any]:
    """Shapes of the parameters and of the state of a golden's model."""
    images = draw(facts["input"])
    made = dict(jax.eval_shape(_net(facts).init, jax.random.key(0), images))
    return made.pop("params"), made


def draw(described: dict[str, Any]) -> np.ndarray:
    """The images [n h w c] that a golden's input describes, moved as it says."""
    drawn = goldens.draw_images(described["shape"], described["seed"])
    moved = re.match(r"x \* ([\d.]+) - ([\d.]+)", described["then"])
    if moved is None:
        return drawn
    factor, offset = map(float, moved.groups())
    return drawn * np.float32(factor) - np.float32(offset)


def outputs(
    net: linen.Module, params: Any, state: Any, images: np.ndarray, names: list[str]
) -> dict[str, np.ndarray]:
    """What `net` computes under `names` of the original, channels first.

    Raises ValueError for a name that no module has.
    """

    @jax.jit
    def apply(params, state, images):
        logits, kept = net.apply(
            {"params": params, **state},
            images,
            capture_intermediates=True,
            mutable=["intermediates"],
        )
        return {
            name: logits if name == "logits" else _kept(kept["intermediates"], name)
            for name in names
        }

    found = jax.device_get(apply(params, state, images))
    if isinstance(net, LeNet5) and "logits" in found:
        # Their logits are distances.
        found["logits"] = -found["logits"]
    return {
        name: np.moveaxis(value, -1, 1) if value.ndim == 4 else value
        for name, value in found.items()
    }


def _kept(intermediates, name):
    """The output `name` among those that were captured."""
    if f"{name}." in intermediates:
        return intermediates[f"{name}."][0]
    found = intermediates
    for part in [name] if name in found else name.split("."):
        if part not in found:
            raise ValueError(f"no module is called {name}; there are {[*found]}")
        found = found[part]
    return (found["__call__"] if isinstance(found, dict) else found)[0]


def _training(facts, params, state) -> certificate.Training:
    """Losses and gradients on drawn labels, with running statistics.

    The first of the losses is the one that is differentiated.
    """
    net, images = _net(facts), draw(facts["input"])
    train = facts["train"]
    first, *_ = train["losses"]
    classes = facts["outputs"]["logits"]["shape"][-1]

    def loss(params, state, batch, key):
        logits: Any = net.apply({"params": params, **state}, batch.inputs.images)
        found = {n: LOSSES[n](logits, batch.target).mean() for n in train["losses"]}
        return found[first], (state, found)

    model = Model(Spec("classification", classes), net.init, loss, net.apply, net)
    labels = np.asarray(train["labels"], np.int32)
    view = View(
        jnp.zeros((len(labels), 2, 3)), jnp.zeros((len(labels), 2)), labels > -1
    )
    target = Label(np.eye(classes, dtype=np.float32)[labels])
    return certificate.training(
        model,
        params,
        state,
        Batch(Inputs(images, view), target, labels),
        names={name: name for name in train["losses"]},
        source=_source(facts),
    )


def _source(facts) -> str:
    """The source of a golden's names; those of our own goldens are torchvision's."""
    origin, *_ = facts["source"].split()
    return ORIGINS.get(origin, SOURCE)


def _net(facts):
    name = MODELS[facts["model"]]
    settings = {"num_classes": 1000, **goldens.settings(facts)}
    if "outputs" in facts:
        settings["num_classes"] = facts["outputs"]["logits"]["shape"][-1]
    names = (key for key, _ in facts.get("state_dict", ()))
    return backbones.make(name, **backbones.implied(name, names), **settings)


def loaded(golden: Golden) -> tuple[Any, Any]:
    """The parameters and the state of a golden's model."""
    source = _source(golden.facts)
    loaded = convert.load(golden.state_dict, *shapes(golden.facts), source=source)
    return loaded[:2]
