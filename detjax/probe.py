"""Linear probes: what a frozen network's features tell about other classes.

One pass over the pictures, then seconds. The better use of few pictures than training
a head by gradient descent, and the first half of fine-tuning (LP-FT, Kumar et al.,
ICLR 2022): a run can start from the folder that is written here.
"""

import functools
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from detjax import (
    cli,
    embedding,
    experiment,
    files,
    linear,
    models,
    resume,
    run,
    sharding,
    tasks,
    train,
)
from detjax.checkpoint import Checkpoints
from detjax.data import dataset
from detjax.errors import UserError
from detjax.experiment import Settings
from detjax.optim import Optimizer
from detjax.optim import make as make_optimizer
from detjax.types import Inputs, Model

Method = Literal["ridge", "logistic"]
SHOTS = (5, 10, 20, 50)
ROOTS = "logistic of roots"


class Begun(NamedTuple):
    """A model with the weights that it starts from, and its data."""

    settings: Settings
    model: Model
    data: dataset.Data
    params: Any
    state: Any
    layout: sharding.Layout
    described: dict[str, Any]


def probe(
    config: ConfigDict,
    workdir: str | pathlib.Path,
    *,
    method: Method = "logistic",
    shots: Sequence[int] = SHOTS,
    repeats: int = 10,
    folds: int = 5,
) -> dict[str, Any]:
    """Probes the classifier of `config` with the weights of its train.init_from.

    Where data.augment.mirror is set mirrored images are learnt too. Of the training
    split: the accuracy in `folds` folds, and of `repeats` draws of so many images a
    class (`shots`) on the rest, by both methods and by the second on the features'
    square roots, each strength chosen by folds of what is learnt from. Without `shots`
    and with 0 `folds` there is no table; logistic regression of more than
    `linear.LOGISTIC_PRODUCTS` is left out of it. Writes them to `workdir`/probe.json
    and probe.md, and a run whose head is the probe of `method`, learnt of the whole
    split, with its metrics on the evaluation split.

    Raises UserError for a model that is no classifier, images of several classes, a
    head that is not one layer, and where logistic regression would take hours; all
    but the images' classes are told before features are computed.
    """
    begun = begin(config, workdir)
    workdir = pathlib.Path(workdir)
    layer = probed_layer(begun)
    mirrored = bool((begun.settings["data"].get("augment") or {}).get("mirror"))
    methods = solvable(begun, layer, mirrored, method)
    found = embedded(begun, workdir, mirrored)
    features, labels = np.asarray(found.features), labels_of(found.labels)
    classes = len(begun.data.info.classes)
    biased = "bias" in held_by(begun.params, layer)
    how: dict[str, Any] = {
        "shots": shots,
        "repeats": repeats,
        "folds": folds,
        "biased": biased,
    }
    results = {}
    if shots or folds:
        for name in methods:
            results[name] = scores(name, features, labels, classes, **how)
        if "logistic" in methods:
            # What no last layer can be: the network's features are not these.
            powers = linear.roots(features)
            results[ROOTS] = scores("logistic", powers, labels, classes, **how)
    solved = linear.fit(method, features, labels, classes, biased=biased)
    factor = calibration(method, features, labels, classes, biased)
    write(begun, with_head(begun.params, layer, solved, factor), workdir)
    text = table(results, len(labels), features.shape[2])
    files.write_text(workdir / "probe.json", json.dumps(results, indent=1) + "\n")
    files.write_text(workdir / "probe.md", text)
    metrics = run.evaluate(workdir)
    return {"table": text, "results": results, "metrics": metrics}


def begin(config: ConfigDict, workdir: str | pathlib.Path) -> Begun:
    """What `config` starts from, without training. Raises UserError as a run does."""
    settings = experiment.resolve(config)
    if not settings["train"].get("init_from"):
        raise UserError(
            "train.init_from is not set; give the folder of weights whose features "
            "are meant: --config.train.init_from=DIR"
        )
    workdir = cli.make_workdir(workdir)
    if (workdir / "checkpoints").exists():
        raise UserError(
            f"{workdir} holds a run or an earlier probe; choose another --workdir, or "
            "remove that folder first"
        )
    task = tasks.TASKS[models.task_of(settings["model"]["name"])]
    data = dataset.make(task, **settings["data"])
    settings["model"].setdefault("num_classes", len(data.info.classes))
    settings["model"] = models.standing(settings["model"])
    # An average has nothing to follow.
    settings["model"].pop("ema", None)
    model = models.make(**settings["model"])
    described = run.describe(settings, data.info)
    resume.check(described, data.info, workdir)
    images = np.zeros((1, *data.size, 3), np.uint8)
    steps = settings["train"]["steps"]
    optimizer, _ = make_optimizer(**settings["optimizer"], steps=steps)
    fresh = jax.jit(train.create, static_argnums=(0, 1, 2, 3))
    still: Optimizer = optimizer._replace(init=lambda params: {})
    seed = settings["train"].get("seed", 0)
    state = fresh(model.init, still, Shape(images.shape, images.dtype), seed)
    state = train.started(
        state,
        model,
        settings["train"]["init_from"],
        settings["train"].get("init_allow"),
        workdir,
    )
    layout = sharding.nearest(**settings["sharding"])
    return Begun(settings, model, data, state.params, state.state, layout, described)


class Shape(NamedTuple):
    """A shape and a dtype that a jitted function can be compiled for."""

    shape: tuple[int, ...]
    dtype: Any


def probed_layer(begun: Begun) -> tuple[str, ...]:
    """The path of the layer that a probe replaces.

    Raises UserError where there is none, and where the network's answers are not the
    softmax of what one makes.
    """
    described = begun.settings["model"]
    name = described["name"]
    if begun.model.spec.task != "classification":
        raise UserError(
            f"model.name={name!r} is no classifier, and has no last layer to probe; "
            "choose model.name='classifier' and its backbone"
        )
    if (described.get("loss") or {}).get("several"):
        raise UserError(
            "model.loss.several is set, and a probe tells classes apart that exclude "
            "each other; leave it out"
        )
    backbone = (described.get("backbone") or {}).get("name")
    called = f"model.backbone.name={backbone!r}" if backbone else f"model.name={name!r}"
    layer = embedding.last_layer(begun.model, begun.params)
    if layer is None:
        raise UserError(
            f"{called} has no last layer with weights for every class, which a probe "
            "would be; choose another backbone"
        )
    if not ends_in(begun, layer):
        raise UserError(
            f"{called} does more behind its last layer than a softmax, such as a ReLU, "
            "so that a probe cannot be its head; choose another backbone"
        )
    return layer


def ends_in(begun: Begun, layer: tuple[str, ...]) -> bool:
    """Whether the answers are the softmax of what `layer` makes, by drawn heads."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, *begun.data.size, 3), np.uint8)
    inputs = Inputs(jnp.asarray(images))
    read = embedding.embed(begun.model, begun.params)

    @jax.jit
    def answer(params: Any) -> tuple[jax.Array, jax.Array]:
        given = params, begun.state, inputs
        return read(*given)[:, 0], begun.model.predict(*given).scores

    seen = np.asarray(answer(begun.params)[0])
    count = begun.model.spec.outputs
    kernel = rng.normal(size=(seen.shape[1], count)) / max(
        float(np.linalg.norm(seen[0])), 1.0
    )
    bias = rng.normal(size=count)
    if "bias" not in held_by(begun.params, layer):
        bias = np.zeros(count)
    # Of both signs: a ReLU leaves one of them alone.
    for sign in (1.0, -1.0):
        drawn = linear.Linear(sign * kernel, sign * bias, 0.0)
        _, found = answer(with_head(begun.params, layer, drawn, 1.0))
        apart = np.log(found) - jax.nn.log_softmax(drawn.logits(seen))
        if not np.abs(apart).max() < 0.1:  # what bfloat16 loses
            return False
    return True


def solvable(
    begun: Begun, layer: tuple[str, ...], mirrored: bool, method: Method
) -> list[str]:
    """The methods that solve this in minutes. Raises UserError if `method` does not."""
    count = len(begun.data.learnt()) * (1 + mirrored)
    each = held_by(begun.params, layer)["kernel"].size
    if count * each <= linear.LOGISTIC_PRODUCTS:
        return [*linear.METHODS]
    why = (
        f"logistic regression of {count:,} images{', mirrored ones too,' * mirrored} "
        f"with a head of {each:,} weights, would take hours"
    )
    if method == "logistic":
        raise UserError(f"{why}; give --method=ridge")
    print(f"{why}, and is left out", file=sys.stderr)
    return ["ridge"]


def embedded(
    begun: Begun, workdir: pathlib.Path, mirrored: bool = False
) -> embedding.Embedded:
    """The features of the training split, as evaluation prepares its images."""
    data = begun.settings["data"]
    seen = {k: v for k, v in data.items() if k not in ("augment", "batch_size")}
    return features_of(begun, begun.data, seen, workdir, mirrored)


def features_of(
    begun: Begun,
    data: dataset.Data,
    prepared: dict[str, Any],
    workdir: pathlib.Path,
    mirrored: bool = False,
) -> embedding.Embedded:
    """The features of the training split of `data`, whose settings are `prepared`.

    Kept in `workdir` until the weights, the model's settings or the data change.
    """
    given = [begun.described["model"], prepared, dict(data.info.made_from), mirrored]
    # As text: leaves of a tree do not know their keys.
    text = json.dumps(given, sort_keys=True, default=str)
    return embedding.cached(
        workdir,
        embedding.digest((begun.params, begun.state), text),
        begun.model,
        begun.params,
        begun.state,
        data.once(),
        len(data.learnt()),
        begun.layout,
        mirrored,
    )


def labels_of(labels: np.ndarray) -> np.ndarray:
    """`labels` [n]. Raises UserError where an image has several, or none: -1."""
    if (np.asarray(labels) < 0).any():
        raise UserError(
            "some images have several classes, or none; a probe tells classes apart "
            "that exclude each other"
        )
    return np.asarray(labels)


def scores(
    method: str,
    features: np.ndarray,
    labels: np.ndarray,
    classes: int,
    *,
    shots: Sequence[int],
    repeats: int,
    folds: int,
    biased: bool = True,
) -> dict[str, list[float]]:
    """Accuracies by images a class: of each draw, and of each fold under "all"."""
    given = method, features, labels, classes
    least = np.bincount(labels, minlength=classes).min()
    if least < folds:
        raise UserError(
            f"a class has {least} images in data.train_split, fewer than the {folds} "
            "folds; set --folds, or choose another split"
        )
    found = {
        str(n): linear.by_shots(*given, n, repeats, biased=biased)
        for n in shots
        if n < least
    }
    if folds:
        found["all"] = linear.in_folds(*given, folds, biased=biased)
    return found


def table(results: dict[str, dict[str, list[float]]], n: int, d: int) -> str:
    """The accuracies of `scores` by method: mean, and deviation of draws or folds."""
    counted = f"{n:,} images, {d:,} features\n"
    if not results:
        return counted
    rows = next(iter(results.values()))
    lines = [f"| images a class | {' | '.join(results)} |"]
    lines.append("|---" * (1 + len(results)) + "|")
    for name in rows:
        found = [np.array(results[method][name]) for method in results]
        cells = [f"{x.mean():.1%} +- {100 * x.std():.1f}" for x in found]
        said = f"all, {len(rows[name])} folds" if name == "all" else name
        lines.append(f"| {said} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", counted])


def calibration(
    method: str, features: np.ndarray, labels: np.ndarray, classes: int, biased: bool
) -> float:
    """The factor that makes logits of unseen images probabilities, by two folds."""
    parts = []
    for test in linear.folds(labels, 2):
        learnt = features[~test], labels[~test]
        made = linear.fit(method, *learnt, classes, biased=biased)
        rows = np.flatnonzero(test)
        rows = rows[linear.sample(labels[rows], linear.CHOSEN_BY)]
        parts.append((made.logits(features[rows, 0]), labels[rows]))
    logits, truth = (np.concatenate(x) for x in zip(*parts, strict=True))
    return linear.temperature(logits, truth)


def held_by(params: Any, layer: tuple[str, ...]) -> dict[str, Any]:
    """The parameters of the layer at the path `layer`."""
    return functools.reduce(lambda tree, name: tree[name], layer, params)


def with_head(
    params: Any, layer: tuple[str, ...], solved: linear.Linear, factor: float
) -> Any:
    """A model's `params` with `solved` as the last layer, at path `layer`."""
    params = jax.tree.map(np.asarray, params)
    held = held_by(params, layer)
    held["kernel"] = np.float32(factor * solved.kernel).reshape(held["kernel"].shape)
    if "bias" in held:
        held["bias"] = np.float32(factor * solved.bias)
    return params


def write(begun: Begun, params: Any, workdir: pathlib.Path) -> None:
    """Writes the model with `params` as a run's checkpoint of step 0."""
    checkpoints = Checkpoints(workdir)
    state = train.TrainState(
        step=jnp.zeros((), jnp.int32),
        params=jax.tree.map(jnp.asarray, params),
        state=begun.state,
        opt_state={},
        key=jax.random.key_data(jax.random.key(0)),
    )
    checkpoints.save(0, state, {})
    checkpoints.close()
    run.write_config(begun.described, workdir)
    print(f"the probe is the head of the run in {workdir}", file=sys.stderr)
