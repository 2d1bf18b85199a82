"""CornerNet and CornerNet-Squeeze, by goldens of the authors' code."""

from typing import Any, NamedTuple

import jax
import numpy as np

from detjax import models
from detjax.models.cornernet import Match
from detjax.nn import observe
from detjax.nn.images import NORMALIZED
from detjax.parity import certificate, goldens
from detjax.parity import cornernet_decode as decode
from detjax.parity.certificate import Certificate, Training
from detjax.parity.goldens import Golden, joined, summary, summary_error
from detjax.types import Batch, Inputs, Model, Objects, View
from detjax.weights import convert

SOURCE = "cornernet"
ORIGINS = ("princeton-vl/CornerNet", "princeton-vl/CornerNet-Lite")
# The source of names of each model's files.
MODELS = {"cornernet": SOURCE, "cornernet_squeeze": "cornernet_lite"}
LOSSES = {"focal": "heat", "pull": "pull", "push": "push", "off": "offset"}
# Their names of outputs by ours; of an hourglass's maps, and of layers.
MAPS = {"heat": "heat", "tag": "tag", "off": "offset"}
LAYERS = {
    "hourglass.{}": "backbone.kps.{}",
    "top_pool.{}": "tl_cnvs.{}.pool1",
    "tl_corner.{}": "tl_cnvs.{}",
}
# Their categories begin at 1.
FIRST = 1


class Answers(NamedTuple):
    """What our model has for a golden."""

    parameters: int
    raw: dict[str, np.ndarray]  # outputs by the original's names, in its layout
    encoded: dict[str, Any]  # targets
    decoded: list[dict[str, np.ndarray]]  # pairs of corners, an entry an image
    tested: decode.Tested
    training: Training


def certify(golden: Golden) -> Certificate:
    """`golden` against detjax: outputs, targets, losses, gradients, detections.

    Raises ValueError where names or shapes do not fit.
    """
    facts, ours = golden.facts, _answers(golden)
    losses, gradients = certificate.training_errors(
        ours.training, facts["train"], LOSSES
    )
    expected = facts["outputs"] | {
        f"decode.{name}": value for name, value in facts["decode"]["outputs"].items()
    }
    errors = {name: summary_error(ours.raw[name], v) for name, v in expected.items()}
    found = [
        decode.share(pairs, decode.pair_rows(rows))
        for pairs, rows in zip(ours.decoded, facts["decode"]["detections"], strict=True)
    ]
    found.append(decode.tested_share(ours.tested, facts["test"]["detections"]))
    return Certificate(
        golden.name,
        ours.parameters,
        facts["parameters"],
        errors | encoded_errors(ours.encoded, facts["train"]["encoded"]),
        losses,
        gradients,
        min(found),
    )


def answers(golden: Golden) -> dict[str, Any]:
    """What a golden of this source holds, by our own code."""
    ours, facts = _answers(golden), golden.facts
    held = {name: summary(value) for name, value in ours.raw.items()}
    second = {n.removeprefix("decode."): v for n, v in held.items() if "decode" in n}
    return {
        "parameters": ours.parameters,
        "outputs": {n: v for n, v in held.items() if "decode" not in n},
        "train": {
            **facts["train"],
            **ours.training.facts(),
            "encoded": {
                name: summary(value) if name.endswith("heat") else value.tolist()
                for name, value in ours.encoded.items()
            },
        },
        "decode": {
            **facts["decode"],
            "outputs": second,
            "detections": [decode.listed(found) for found in ours.decoded],
        },
        "test": {**facts["test"], "detections": decode.listed(ours.tested.found)},
    }


def shapes(facts: dict[str, Any]) -> tuple[Any, Any]:
    """Shapes of the parameters and of the state of a golden's model."""
    return jax.eval_shape(_model(facts).init, jax.random.key(0), _images(facts))


def encoded_errors(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, float]:
    """The errors of targets, of heat maps in units of their std.

    Raises ValueError where a cell differs, or a number of cells or objects.
    """
    errors = {}
    for name, value in ours.items():
        if name not in theirs:
            continue
        if name.endswith("heat"):
            errors[f"encoded.{name}"] = summary_error(value, theirs[name])
            continue
        expected = np.asarray(theirs[name])
        if name.endswith("_off"):
            errors[f"encoded.{name}"] = float(np.abs(value - expected).max())
        elif not np.array_equal(value, expected):
            raise ValueError(f"{name} is {value}, the original has {expected}")
    cells = theirs.get("tl_heat_values")
    if cells:
        *index, values = np.array(cells, np.float64).T
        at = ours["tl_heat"][tuple(np.array(index, np.int64))]
        errors["encoded.tl_heat_values"] = float(np.abs(at - values).max())
    for name in ("tl_heat", "br_heat"):
        if f"{name}_positive" in theirs:
            count = int((ours[name] > 0).sum())
            if count != theirs[f"{name}_positive"]:
                raise ValueError(f"{count} cells of {name} are above 0")
            total, expected = ours[name].sum(dtype=float), theirs[f"{name}_sum"]
            errors[f"encoded.{name}_sum"] = goldens.relative(total, expected)
    return errors


def _model(facts: dict[str, Any], **changes: Any) -> Model:
    settings = {
        "num_classes": 80,
        "backbone": {"norm": "frozen"},
        "pixels": NORMALIZED,
        "detect": decode.settings(facts["decode"]["options"]),
    }
    return models.make(
        facts["model"], **joined(settings, goldens.settings(facts)) | changes
    )


def _images(facts: dict[str, Any]) -> np.ndarray:
    """The images [b h w 3] that `facts` names, RGB: the original's are BGR."""
    given = facts["input"]
    drawn = goldens.draw_images(given["shape"], given["seed"])[..., ::-1]
    return drawn * 4 - 2 if "x * 4 - 2" in given["then"] else drawn


def _answers(golden: Golden) -> Answers:
    facts, model = golden.facts, _model(golden.facts)
    source = MODELS[facts["model"]]
    params, state, _ = convert.load(golden.state_dict, *shapes(facts), source=source)
    variables = {"params": params, **state}
    batch = _batch(facts)
    pixels = _model(facts, pixels=models.make("cornernet", num_classes=1).net.pixels)
    apply = jax.jit(model.net.apply)
    second = jax.device_get(apply(variables, _images(facts["decode"])))[-1]
    return Answers(
        certificate.size(params),
        _raw(model, variables, _images(facts))
        | {f"decode.{name}": value for name, value in _maps(second).items()},
        _encoded(batch, facts),
        decode.pairs(second, facts["decode"]["options"]),
        decode.tested(pixels, variables, facts["test"]),
        certificate.training(model, params, state, batch, names=LOSSES, source=source),
    )


def _raw(model: Model, variables: Any, images: np.ndarray) -> dict[str, np.ndarray]:
    """Maps and layers by the original's names, in its layout."""
    net: Any = model.net
    stacks = net.backbone.stacks
    stem = f"backbone.pre.{net.backbone.stride.bit_length() - 2}"
    layers = {"pre": stem} | {
        theirs.format(i): ours.format(i)
        for theirs, ours in LAYERS.items()
        for i in range(stacks)
    }

    @jax.jit
    def apply(variables, images):
        seen: dict[str, Any] = {}

        def watch(name, x):
            seen[name] = x
            return x

        with observe.watching(watch):
            maps = net.apply(variables, images)
        return maps, {theirs: seen[ours] for theirs, ours in layers.items()}

    maps, seen = jax.device_get(apply(variables, images))
    found = {name: np.moveaxis(value, -1, 1) for name, value in seen.items()}
    for i, each in enumerate(maps):
        found |= {f"{name}.{i}": value for name, value in _maps(each).items()}
    return found


def _maps(maps: Any) -> dict[str, np.ndarray]:
    """An hourglass's maps by the original's names, in its layout."""
    found = {}
    for kind in ("tl", "br"):
        for theirs, ours in MAPS.items():
            value = np.asarray(getattr(getattr(maps, kind), ours))
            value = value[..., None] if ours == "tag" else value
            found[f"{kind}_{theirs}"] = np.moveaxis(value, -1, 1)
    return found


def _batch(facts: dict[str, Any]) -> Batch:
    """The golden's objects, beside its images."""
    images, targets = _images(facts), facts["train"]["targets"]
    b, *size, _ = images.shape
    n = max(len(t["boxes"]) for t in targets)
    objects = goldens.empty_objects(b, n, (1, 1))
    for i, target in enumerate(targets):
        m = len(target["boxes"])
        objects.boxes[i, :m] = target["boxes"]
        objects.labels[i, :m] = np.asarray(target["categories"]) - FIRST
        objects.valid[i, :m] = True
    view = View(
        np.tile(np.eye(3, dtype=np.float32)[:2], (b, 1, 1)),
        np.tile(np.array(size, np.int32), (b, 1)),
        np.ones(b, bool),
    )
    return Batch(Inputs(images, view), objects, np.arange(b, dtype=np.int32))


def _encoded(batch: Batch, facts: dict[str, Any]) -> dict[str, Any]:
    """Targets by the original's names, in its layout."""
    size = batch.inputs.images.shape[1:3]
    cells, classes = _cells(facts), _model(facts).spec.outputs

    @jax.jit
    @jax.vmap
    def encode(objects: Objects):
        return Match().targets(objects, size, cells, classes)

    found = jax.device_get(encode(batch.target))
    held: dict[str, Any] = {"objects": found.objects.sum(axis=1)}
    for kind in ("tl", "br"):
        corner, real = getattr(found, kind), found.objects
        held[f"{kind}_heat"] = np.moveaxis(corner.heat, -1, 1)
        held[f"{kind}_index"] = np.where(real, corner.cell, 0)
        held[f"{kind}_off"] = np.where(real[..., None], corner.offset, 0)
    return held


def _cells(facts: dict[str, Any]) -> tuple[int, int]:
    """(mh, mw) of the maps of a golden's images."""
    model, images = _model(facts), _images(facts)
    params, state = shapes(facts)
    maps: Any = jax.eval_shape(model.net.apply, {"params": params, **state}, images)
    return maps[0].tl.tag.shape[1:]
