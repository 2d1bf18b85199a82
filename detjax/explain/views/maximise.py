"""The view `maximise`: pictures that classes, or units of a layer, answer to most."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from detjax import draw
from detjax.errors import UserError
from detjax.explain import goals, layers, pictures
from detjax.explain.canvas import Kind, as_bytes
from detjax.explain.maximise import maximise
from detjax.explain.views import asked
from detjax.predict import TrainedModel
from detjax.settings import Count, Fraction, NonNegative, Positive, Whole

# Nothing is explained of a picture: none is asked for.
PICTURES = False
MOST = 16  # classes that are climbed where none is named


def view(
    trained: TrainedModel,
    images: Sequence[Path],
    out: Path,
    *,
    labels: tuple[str, ...] = (),
    layer: str = "",
    units: tuple[Whole, ...] = (),
    where: goals.Where = "mean",
    side: Count | None = None,
    canvas: Kind = "spectrum",
    steps: Count = 256,
    rate: Positive | None = None,
    jitter: Whole = 8,
    scale: NonNegative = 0.1,
    blur: NonNegative = 0.0,
    decay: Fraction = 0.0,
    variation: NonNegative = 0.0,
    chunk: Count = 8,
    seed: Whole = 0,
) -> list[Path]:
    """A picture for each class or unit, climbed from noise, and all on one sheet.

    labels: names of classes; the first 16 if neither they nor a layer are given.
    layer: whose units are climbed for, in place of classes.
    units: of the layer; the first 16 if none is given.
    where: the mean of a unit's map, or its value in the centre.
    side: pixels of the picture; the run's input if None.
    canvas: "spectrum" climbs a Fourier spectrum of decorrelated colours, "pixels" the
        pixels.
    steps: of the ascent.
    rate: the length of a step.
    jitter: pixels by which the picture is shifted at random before each step.
    scale: the share by which it is enlarged or reduced at random.
    blur: deviation of a Gaussian over each step's picture; of "pixels" only.
    decay: the share that fades to grey at each step.
    variation: the weight of total variation.
    chunk: units that are a batch of the network.
    seed: of the noise.
    """
    inputs = _blank(trained, side)
    given = trained.model.predict, trained.params, trained.state, inputs
    if layer:
        if labels:
            raise UserError("labels and layer are both given; climb for one of them")
        goal = goals.channel(layer, where)
        goals.check(*given, goal)
        numbers = list(units) or [*range(min(MOST, _width(given, layer)))]
        goals.check(*given, goal, numbers)
        names = [f"unit {n}" for n in numbers]
    else:
        usual = next(iter(trained.task.quantities.values()), None)
        if usual is None or "labels" not in inspect.signature(usual).parameters:
            raise UserError(
                f"the task {trained.task.name!r} has no score of a class; name a layer"
            )
        names = [*labels] or trained.classes[:MOST]
        numbers = [asked.place(trained, name) for name in names]
        goal = goals.score(usual)
    climb = maximise(
        trained.model.predict,
        goal,
        canvas=canvas,
        steps=steps,
        rate=rate,
        jitter=jitter,
        scale=scale,
        blur=blur,
        decay=decay,
        variation=variation,
        chunk=chunk,
    )
    found, amounts = jax.jit(climb)(
        *given[1:], jnp.array(numbers), jax.random.key(seed)
    )
    sheets = [as_bytes(picture) for picture in found]
    captions = [
        f"{name}  {amount:.1f}"
        for name, amount in zip(names, np.asarray(amounts), strict=True)
    ]
    stem = f"maximise-{layer}".rstrip("-")
    paths = [out / f"{stem}.png"]
    draw.save(paths[0], pictures.grid(sheets, captions, 4))
    for name, picture in zip(names, sheets, strict=True):
        paths.append(out / f"{stem}-{name.replace(' ', '_').replace('/', '_')}.png")
        draw.save(paths[-1], picture)
    return paths


def _blank(trained: TrainedModel, side: int | None) -> Any:
    """Grey inputs of the run's size, or of `side` pixels."""
    if side is not None:
        shape = side, side
    else:
        config = trained.config["data"]
        size = config.get("size") or config.get("min_size") or 224
        shape = (size, size) if isinstance(size, int) else tuple(size)
    inputs = pictures.given(trained, np.full((*shape, 3), 127, np.uint8))[1]
    if side is None:
        return inputs
    # In the size that was asked for, whatever the run resizes pictures to.
    images = np.full((1, *shape, 3), 127, inputs.images.dtype)
    return inputs.replace(images=images)  # type: ignore[attr-defined]


def _width(given: Any, layer: str) -> int:
    """The units of a layer."""
    predict, params, state, inputs = given
    return layers.find(predict, params, state, inputs, layer).shape[-1]
