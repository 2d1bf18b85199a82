"""The view `influence`: the units of a layer that matter, and what they look at."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from detjax import draw, files
from detjax.errors import UserError
from detjax.explain import influence, layers, pictures, rectified, splits, units
from detjax.explain.views import asked
from detjax.explain.views.activations import safe
from detjax.plots import style
from detjax.predict import TrainedModel
from detjax.settings import Count, Whole
from detjax.types import Asked, Located, Scores

TRIED = 8  # layers that are tried, the last ones
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

    layer: the slice, by name; the last one of the backbone with rows and columns if
        empty.
    label: the class whose score is explained; what the model answers if empty.
    against: a class whose score is subtracted: why `label`, and not this one?
    kind: "conductance" of the line from the mean colour to the picture, or "internal",
        the influence over that line.
    steps: of the line.
    most: units that are drawn.
    suffice: whether a few units tell `label` from the others, by their number: a plot
        over a split of the run's data set.
    split: of `suffice`.
    limit: of its pictures of the class, and of those of the others; 0 takes all.

    A unit is a channel; its influence is summed over places. Also writes
    influence.json. Raises UserError for names that are not known.
    """
    if kind not in KINDS:
        raise UserError(f"kind={kind!r} is not known; choose one of {', '.join(KINDS)}")
    if (against or suffice) and not label:
        raise UserError("label is not set; give the class that is explained")
    labels = [x for x in (label, against) if x]
    ask = asked.Asker(trained, "", labels, most=len(labels) or 1)
    tables, paths = {}, []
    for path, stem in zip(images, pictures.stems(images), strict=True):
        image, inputs = pictures.given(trained, path)
        of = ask(inputs)
        if not of.captions:
            raise UserError(f"{path}: the model finds nothing there to explain")
        layer = _layer(ask, inputs, layer, of)
        build = _amounts(ask, layer, kind, steps, bool(against))
        amounts = np.asarray(ask.run(("amounts", layer), build, of, inputs))[0, 0]
        if not amounts.any():
            raise UserError(
                f"{path}: nothing of the layer {layer!r} moves the answer "
                f"{of.captions[0]}; name a layer that it is made of"
            )
        order = units.ranked(amounts)[:most]
        tables[stem] = {str(i): float(amounts[i]) for i in order}
        looks = ask.program(("looks", layer), _looks(ask, layer))
        seen, maps = looks(None, *ask.weights, inputs, jnp.asarray(order))
        image, shown = pictures.small(image, inputs)
        sheet = _sheet(image, shown, order, amounts, np.asarray(maps)[0], seen)
        paths.append(out / f"influence-{stem}.png")
        draw.save(paths[-1], sheet)
    held: dict[str, Any] = {"layer": layer, "kind": kind, "units": tables}
    known = out / "influence.json"
    if suffice:
        found, layer = _sufficiency(ask, layer, label, split, limit, kind, steps)
        held |= {
            "layer": layer,
            "kept": found.counts.tolist(),
            "accuracy": {k: v.tolist() for k, v in found.accuracy.items()},
            "pairs": {k: v.tolist() for k, v in found.pairs.items()},
        }
    files.write_text(known, json.dumps(held, indent=1) + "\n")
    if suffice:
        paths.append(out / f"suffice-{safe(label)}.png")
        style.save(paths[-1], _plot(found, label, layer))
    return [*paths, known]


def _amounts(
    ask: asked.Asker, layer: str, kind: str, steps: int, against: bool
) -> asked.Build:
    """The influence [1 1 c] of the layer's channels."""

    def build(quantity, params, state, inputs, which):
        of = asked.difference(quantity, against)
        call = getattr(influence, kind)(
            ask.predict, lambda answers: of(answers, which), layer, steps=steps
        )
        return units.by_channel(call(params, state, inputs))

    return build


def _looks(ask: asked.Asker, layer: str) -> asked.Build:
    """What channels look at, and what the layer returns."""

    def build(_, params, state, inputs, channels):
        rectified_too = rectified.rectifiers(ask.predict, params, state, inputs) > 0
        through = rectified.guided if rectified_too else None
        looks = units.looks(ask.predict, layer, through)
        _, held = layers.seen(ask.predict, [layer])(params, state, inputs)
        return looks(params, state, inputs, channels), held[layer]

    return build


def _layer(ask: asked.Asker, inputs: Any, name: str, of: Asked | None = None) -> str:
    """The layer called `name`, the last of the backbone with rows and columns if empty.

    The last one that moves what is asked: of SSD's levels most see another object.
    Raises UserError where there is none.
    """
    if name:
        ask.find(inputs, name)
        return name
    names = ask.usual(inputs, coarsest=False)[-TRIED:]
    if of is None or len(names) == 1:
        return names[-1]

    def build(quantity, params, state, inputs, which):
        call = layers.slopes(ask.predict, names, lambda x: quantity(x, which))
        found = call(params, state, inputs).gradients
        return {name: (slope[0] != 0).any() for name, slope in found.items()}

    moves = ask.run(("moves", *names), build, of, inputs)
    return next((name for name in reversed(names) if moves[name]), names[-1])


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
    ask: asked.Asker,
    layer: str,
    label: str,
    split: str,
    limit: int,
    kind: str,
    steps: int,
) -> tuple[units.Sufficiency, str]:
    """Accuracy by units kept, in the order of influence, of activity, and of chance."""
    predict, (params, state) = ask.predict, ask.weights
    number = asked.place(ask.trained, label)

    def shown() -> Iterator[splits.Shown]:
        return splits.balanced(splits.opened(ask.trained, split), number, limit)

    def own() -> Iterator[Any]:
        return splits.of_class(shown(), number)

    first = next(own(), None)
    if first is None:
        raise UserError(
            f"the split {split!r} has no picture of {label!r}; give another with split"
        )
    layer = _layer(ask, first, layer)

    def of(answers: Any) -> Any:
        return _odds(answers, number)[:, None]

    call = getattr(influence, kind)(predict, of, layer, steps=steps)
    look = layers.seen(predict, [layer])

    def both(*args: Any) -> Any:
        active = look(*args)[1][layer][None].astype(jnp.float32)
        return jnp.concatenate([units.by_channel(x) for x in (call(*args), active)])

    by_influence, by_activity = influence.over(both, params, state, own())
    width = len(by_influence)
    rng = np.random.default_rng(0)
    chance = {f"{CHANCE} {i}": rng.permutation(width) for i in range(DRAWS)}
    counts = np.unique(np.round(np.geomspace(1, width, 12)).astype(int))
    found = units.sufficient(
        predict,
        layer,
        params,
        state,
        ((each.inputs, each.labels) for each in shown()),
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
