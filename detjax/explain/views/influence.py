"""The view `influence`: the units of a layer that matter, and what they look at."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from detjax import draw, files
from detjax.errors import UserError
from detjax.explain import influence, layers, pictures, rectified, splits, units
from detjax.explain.views import asked
from detjax.plots import style
from detjax.predict import TrainedModel
from detjax.settings import Count, Whole
from detjax.types import Located, Scores

# Rows and columns of the layer that is taken where none is named, if there is one.
LEAST = 4
# Orders of units by chance, of which the mean is drawn.
CHANCE, DRAWS = "chance", 5
KINDS = ("internal", "conductance")


def view(
    trained: TrainedModel,
    images: Sequence[Path],
    out: Path,
    *,
    layer: str = "",
    label: str = "",
    against: str = "",
    kind: str = "conductance",
    steps: Count = 25,
    most: Count = 7,
    suffice: bool = False,
    split: str = "val",
    limit: Whole = 256,
) -> list[Path]:
    """A sheet a picture: its most influential units, and where and what they look at.

    layer: the slice, by name; the last one with rows and columns if empty.
    label: the class whose score is explained; what the model answers if empty.
    against: a class whose score is subtracted: why `label`, and not this one?
    kind: "conductance" of the line from the mean colour to the picture, or "internal",
        the influence over that line.
    steps: of the line.
    most: units that are drawn.
    suffice: whether a few units tell `label` from the others, by their number: a plot
        over a split of the run's data set.
    split: of `suffice`.
    limit: of its pictures; 0 takes all.

    A unit is a channel; its influence is summed over places. Also writes
    influence.json. Raises UserError for names that are not known.
    """
    if kind not in KINDS:
        raise UserError(f"kind={kind!r} is not known; choose one of {', '.join(KINDS)}")
    if (against or suffice) and not label:
        raise UserError("label is not set; give the class that is explained")
    of = asked.quantity(trained, "", [x for x in (label, against) if x])

    def measured(answers: Any) -> Any:
        found = of(answers)
        return influence.difference(of)(answers) if against else found[:, :1]

    predict = trained.model.predict
    tables, paths = {}, []
    programs: _Programs | None = None
    for path in images:
        image, inputs = pictures.given(trained, path)
        weights = trained.params, trained.state, jax.tree.map(jnp.asarray, inputs)
        layer = _layer(predict, weights, layer)
        programs = programs or _compiled(predict, weights, measured, layer, kind, steps)
        amounts = np.asarray(programs.amounts(*weights))[0, 0]
        order = units.ranked(amounts)[:most]
        tables[Path(path).name] = {str(i): float(amounts[i]) for i in order}
        seen = programs.looks(*weights, jnp.asarray(order))
        maps = np.asarray(programs.values(*weights)[1][layer])[0]
        sheet = _sheet(image, inputs, order, amounts, maps, seen)
        paths.append(out / f"influence-{Path(path).stem}.png")
        draw.save(paths[-1], sheet)
    held: dict[str, Any] = {"layer": layer, "kind": kind, "units": tables}
    if suffice:
        found, layer = _sufficiency(trained, layer, label, split, limit, kind, steps)
        held |= {
            "layer": layer,
            "kept": found.counts.tolist(),
            "accuracy": {k: v.tolist() for k, v in found.accuracy.items()},
            "pairs": {k: v.tolist() for k, v in found.pairs.items()},
        }
        paths.append(out / f"suffice-{label}.png")
        style.save(paths[-1], _plot(found, label, layer))
    paths.append(out / "influence.json")
    files.write_text(paths[-1], json.dumps(held, indent=1) + "\n")
    return paths


class _Programs(NamedTuple):
    """What is computed of every picture."""

    amounts: Callable[..., Any]  # the influence of channels
    looks: Callable[..., units.Looks]
    values: Callable[..., Any]  # what the layer returns


def _compiled(predict, weights, measured, layer, kind, steps) -> _Programs:
    call = getattr(influence, kind)(predict, measured, layer, steps=steps)
    rectified_too = rectified.rectifiers(predict, *weights) > 0
    through = rectified.guided if rectified_too else None
    return _Programs(
        jax.jit(lambda *args: units.by_channel(call(*args))),
        jax.jit(units.looks(predict, layer, through)),
        jax.jit(layers.seen(predict, [layer])),
    )


def _layer(predict: Any, weights: Any, name: str) -> str:
    """The layer called `name`, the last with rows and columns if it is empty."""
    if name:
        params, state, inputs = weights
        layers.find(predict, params, state, inputs, name)
        return name
    found = layers.shapes(predict, *weights)
    for least in (LEAST, 2):
        maps = [
            k
            for k, x in found.items()
            if len(x.shape) == 4 and min(x.shape[1:3]) >= least
        ]
        if maps:
            return maps[-1]
    raise UserError("the model has no layer with rows and columns; name a layer")


def _sheet(image, inputs, order, amounts, maps, seen: units.Looks) -> np.ndarray:
    """The picture, and each unit: its map, and the pixels of its strongest answer."""
    panels, captions = [image], ["the picture"]
    for i, channel in enumerate(order):
        name = f"unit {channel}: {amounts[channel]:+.3f}"
        if maps.ndim == 3:
            heat = np.maximum(maps[..., channel], 0)
            heat = heat / max(float(heat.max()), 1e-12)
            panels.append(pictures.overlay(image, heat, inputs))
            captions.append(name)
        slope = np.abs(np.asarray(seen.gradients)[i, 0]).max(axis=-1)
        panels.append(pictures.overlay(image, asked.scaled(slope), inputs))
        captions.append(f"pixels of unit {channel}")
    return pictures.grid(panels, captions, 5, side=220)


def _sufficiency(
    trained: TrainedModel,
    layer: str,
    label: str,
    split: str,
    limit: int,
    kind: str,
    steps: int,
) -> tuple[units.Sufficiency, str]:
    """Accuracy by units kept, in the order of influence, of activity, and of chance."""
    predict, params, state = trained.model.predict, trained.params, trained.state
    number = asked.place(trained, label)
    held = [*splits.opened(trained, split, limit)]
    layer = _layer(predict, (params, state, held[0].inputs), layer)

    def of(answers: Any) -> Any:
        return _odds(answers, number)[:, None]

    call = getattr(influence, kind)(predict, of, layer, steps=steps)
    look = layers.seen(predict, [layer])

    def active(*args: Any) -> Any:
        return units.by_channel(look(*args)[1][layer][None])

    own = [_only(shown, number) for shown in held]
    by_influence = influence.over(
        lambda *args: units.by_channel(call(*args)), params, state, own
    )[0]
    by_activity = influence.over(active, params, state, own)[0]
    width = len(by_influence)
    rng = np.random.default_rng(0)
    chance = {f"{CHANCE} {i}": rng.permutation(width) for i in range(DRAWS)}
    counts = np.unique(np.round(np.geomspace(1, width, 12)).astype(int))
    found = units.sufficient(
        predict,
        layer,
        params,
        state,
        [(shown.inputs, shown.labels) for shown in held],
        number,
        {
            "influence": units.ranked(by_influence),
            "activity": units.ranked(by_activity),
            **chance,
        },
        [int(k) for k in counts],
        lambda answers: _odds(answers, number),
    )
    return found._replace(
        accuracy=_with_chance(found.accuracy), pairs=_with_chance(found.pairs)
    ), layer


def _with_chance(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`found` by order, with the mean of the drawn orders in place of each."""
    drawn = [values for name, values in found.items() if name.startswith(CHANCE)]
    rest = {k: values for k, values in found.items() if not k.startswith(CHANCE)}
    return rest | {CHANCE: np.mean(drawn, axis=0)}


def _only(shown: splits.Shown, label: int) -> Any:
    """The inputs of a batch, of which only those of a class are valid."""
    view = shown.inputs.view.replace(valid=shown.labels == label)  # type: ignore[union-attr,attr-defined]
    return shown.inputs.replace(view=view)  # type: ignore[attr-defined]


def _odds(answers: Any, label: int) -> Any:
    """The class's logit less the others' together, [b]: it against all others."""
    if not isinstance(answers, Scores | Located):
        raise UserError(
            "the model does not tell the class of an image, which suffice is about; "
            "take a run of a classifier, or of one that localises"
        )
    of = answers.logits
    if of is None:
        of = jnp.log(jnp.maximum(answers.scores, 1e-12))
    others = jnp.where(jnp.arange(of.shape[1]) == label, -jnp.inf, of)
    return of[:, label] - jax.nn.logsumexp(others, axis=1)


def _plot(found: units.Sufficiency, label: str, layer: str) -> Any:
    figure = style.figure(6.0, 4.0)
    axis = figure.subplots()
    for i, (name, values) in enumerate(found.accuracy.items()):
        axis.plot(found.counts, values, marker="o", label=name, **style.line(i))
    axis.set(
        xscale="log",
        xlabel=f"units kept of {layer}",
        ylabel=f"{label} told from the others",
        ylim=(0.45, 1.02),
    )
    axis.legend(title="in the order of")
    return figure
