"""Gated-SCNN, by goldens of the authors' code.

A drawn map stands for Canny's edges there, and the dual loss's noise is drawn too.
"""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np

from detjax import models
from detjax.models.gscnn import Loss
from detjax.models.gscnn.model import parts
from detjax.models.pixelwise import enlarged
from detjax.nn.images import NORMALIZED
from detjax.ops.edges import label_edges
from detjax.parity import certificate, goldens, segmenters
from detjax.parity import segmentation_inputs as inputs
from detjax.parity.certificate import Certificate, Training
from detjax.parity.goldens import Golden, joined, summary
from detjax.types import Model
from detjax.weights import convert

MODELS = {"gscnn": "gscnn"}
ORIGINS = ("nv-tlabs/GSCNN",)
SOURCE = "gscnn"  # of weights
LOSSES = {
    "seg_loss": "pixels",
    "edge_loss": "edge",
    "att_loss": "attention",
    "dual_loss": "dual",
}
_EPS = 1e-10


class Answers(NamedTuple):
    """What our model has for a golden, in the original's layout."""

    parameters: int
    outputs: dict[str, np.ndarray]
    training: Training
    drawn: bool  # see `segmenters.on_images`


def certify(golden: Golden) -> Certificate:
    """`golden` against detjax: weights, maps, classes of pixels, losses, gradients.

    Raises ValueError where names or shapes do not fit, or edges are not the golden's.
    """
    facts, ours = golden.facts, _answers(golden)
    losses, gradients = certificate.training_errors(
        ours.training, facts["train"], LOSSES
    )
    return Certificate(
        golden.name,
        ours.parameters,
        facts["parameters"],
        segmenters.errors(ours.outputs, facts),
        losses,
        gradients,
        moved=inputs.moved(ours.outputs["out"], facts["argmax"]),
        images="as drawn" if ours.drawn else None,
    )


def answers(golden: Golden) -> dict[str, Any]:
    """What a golden of this source holds, by our own code."""
    ours = _answers(golden)
    return {
        "parameters": ours.parameters,
        "outputs": {name: summary(value) for name, value in ours.outputs.items()},
        "argmax": inputs.winners(ours.outputs["out"]),
        "train": {**golden.facts["train"], **ours.training.facts()},
    }


def shapes(facts: dict[str, Any]) -> tuple[Any, Any]:
    """Shapes of the parameters and of the state of a golden's model."""
    images = inputs.images(facts["input"])
    return jax.eval_shape(_model(facts).init, jax.random.key(0), images)


def edges(described: dict[str, Any], seed: int, radius: int, count: int) -> np.ndarray:
    """The edges [n h w] of the label map of `seed`; `described` has the rest.

    Raises ValueError where they are not `count`.
    """
    held = inputs.drawn_map({**described, "seed": seed})
    each = jax.vmap(functools.partial(label_edges, radius=radius))
    found = np.asarray(each(held, held != described["ignore"]))
    if found.sum() != count:
        raise ValueError(f"{found.sum()} pixels are edges, the golden has {count}")
    return found


def noise(facts: dict[str, Any], shape: tuple[int, ...]) -> np.ndarray:
    """The Gumbel noise of a golden's dual loss, for logits of `shape` [n h w c]."""
    n, h, w, c = shape
    rng = np.random.default_rng([facts["seed"], 13])
    drawn = rng.random((n, c, h * w), np.float32)
    found = -np.log(np.float32(_EPS) - np.log(drawn + np.float32(_EPS)))
    return np.moveaxis(found, 1, -1).reshape(shape)


def _model(facts: dict[str, Any]) -> Model:
    settings: dict[str, Any] = {
        "backbone": {"norm": "frozen", "dropout": False},
        "pixels": NORMALIZED,
        "num_classes": facts["train"]["target"]["classes"],
    }
    changes = goldens.settings(facts)
    return models.make(MODELS[facts["model"]], **joined(settings, changes))


def _answers(golden: Golden) -> Answers:
    facts, model = golden.facts, _model(golden.facts)
    params, state, _ = convert.load(golden.state_dict, *shapes(facts), source=SOURCE)
    target, canny = facts["train"]["target"], facts["canny"]
    given = edges(target, canny["label_map_seed"], 1, canny["count"])
    given = np.where(given, *reversed(canny["values"])).astype(np.float32)
    radius = Loss().radius
    edges(target, target["seed"], radius, facts["edge_target_count"])
    images, found, drawn = segmenters.on_images(
        facts, lambda images: _forward(model)(params, state, images, given)
    )
    batch = inputs.batch(facts)
    drawn_noise = noise(facts, (*images.shape[:3], model.spec.outputs))

    def loss(params, state, batch, key):
        made = model.net.apply(
            {"params": params, **state},
            batch.inputs.images,
            train=True,
            edges=given,
            mutable=[*state],
        )
        total, metrics = parts(made[0], batch, drawn_noise, Loss())
        return total, (state, metrics)

    training = certificate.training(
        model._replace(loss=loss),
        params,
        state,
        inputs.with_images(batch, images),
        names=LOSSES,
        source=SOURCE,
    )
    # What nothing reads has no gradient in torch, and here one of zeros.
    norms = {name: both for name, both in training.norms.items() if any(both)}
    training = training._replace(norms=norms)
    return Answers(certificate.size(params), found, training, drawn)


def _forward(model: Model):
    """(params, state, images, edges) -> outputs by the original's names; compiled."""

    @jax.jit
    def forward(params, state, images, edges):
        (logits, edge), kept = model.net.apply(
            {"params": params, **state},
            images,
            edges=edges,
            capture_intermediates=True,
            mutable=["intermediates"],
        )
        made = kept["intermediates"]
        features = made["backbone"]["__call__"][0]
        return {
            "out": enlarged(logits, images.shape[1:3]),
            "edge": edge[..., None],
            **{f"mod{i}": features[i - 1] for i in (2, 3, 7)},
            **{
                name: made[name]["__call__"][0]
                for name in ("gate1", "gate3", "fuse", "aspp")
            },
        }

    return forward
