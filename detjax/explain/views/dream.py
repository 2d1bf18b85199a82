"""The view `dream`: DeepDream, of pictures and as a walk into one."""

import contextlib
import functools
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from detjax import draw, files, predict
from detjax.errors import UserError
from detjax.explain import dream as dreams
from detjax.explain import goals, pictures
from detjax.explain.layers import seen
from detjax.explain.views import asked
from detjax.predict import TrainedModel
from detjax.settings import Count, Positive, Whole

FILM = 640  # pixels of the longer side of a film's frames


def view(
    trained: TrainedModel,
    images: Sequence[Path],
    out: Path,
    *,
    layers: tuple[str, ...] = (),
    weights: tuple[float, ...] = (),
    guide: str = "",
    tile: Count = 224,
    octaves: Count = 5,
    scale: Positive = 1.4,
    steps: Count = 10,
    rate: Positive = 0.01,
    jitter: Whole = 32,
    chunk: Count = 4,
    frames: Whole = 0,
    zoom: Positive = 1.04,
    seed: Whole = 0,
) -> list[Path]:
    """Each picture, dreamt into at its own size; with frames a GIF that walks into it.

    layers: whose activity grows; the last with rows and columns, at least 4 of each, if
        none is named.
    weights: of the layers; 1 each if none are given.
    guide: a picture's path; layers then look for what it has, and not for anything.
    tile: pixels of a side of what the network sees at once; bounds the memory.
    octaves: sizes that the picture is dreamt at.
    scale: between octaves.
    steps: in each octave.
    rate: how far a pixel moves in a step, on average; 1 is from black to white.
    jitter: pixels by which tiles are shifted at random.
    chunk: tiles that are seen at once.
    frames: of the walk; 0 makes none.
    zoom: from frame to frame.
    seed: of the shifts.
    """
    climb, side = _climb(trained, layers, weights, guide, tile, chunk)
    dreamt = functools.partial(
        dreams.dream,
        climb,
        side=side,
        octaves=octaves,
        scale=scale,
        steps=steps,
        rate=rate,
        jitter=jitter,
        chunk=chunk,
    )
    paths = []
    for path, stem in zip(images, pictures.stems(images), strict=True):
        picture = predict.as_rgb(path)
        found = dreamt(picture, seed=seed)
        paths.append(out / f"dream-{stem}.png")
        draw.save(paths[-1], found)
        if frames:
            walk = dreams.zoom(
                lambda picture, number: dreamt(picture, seed=seed + number),
                picture,
                frames,
                zoom,
            )
            paths.append(paths[-1].with_suffix(".gif"))
            files.write_bytes(paths[-1], _film(walk))
    return paths


def _film(walk: Iterable[np.ndarray]) -> bytes:
    """A GIF of pictures, which are taken one after the other and made small."""
    small = (draw.canvas(frame, 0, FILM) for frame in walk)
    frames = (Image.fromarray(frame) for frame in small)
    held = io.BytesIO()
    next(frames).save(
        *(held, "GIF"), save_all=True, append_images=frames, duration=80, loop=0
    )
    return held.getvalue()


def _climb(
    trained: TrainedModel,
    names: tuple[str, ...],
    weights: tuple[float, ...],
    guide: str,
    side: int,
    chunk: int,
) -> tuple[Any, int]:
    """The jitted gradient of tiles, and their side."""
    inputs = pictures.given(trained, np.full((side, side, 3), 127, np.uint8))[1]
    blank = np.full((1, side, side, 3), 127, inputs.images.dtype)
    inputs = inputs.replace(images=blank)  # type: ignore[attr-defined]
    model, held = trained.model.predict, (trained.params, trained.state)
    names = names or (_last_map(trained, inputs),)
    if guide:
        shown = pictures.given(trained, guide)[1]
        _, known = jax.jit(seen(model, names))(*held, shown)
        each = [goals.guided(name, known[name][0]) for name in names]
    else:
        each = [goals.energy(name) for name in names]
    goal = goals.mixed(each, weights or None)
    goals.check(model, *held, inputs, goal)
    call = jax.jit(dreams.gradient(model, goal))
    return functools.partial(call, *held, inputs), side


def _last_map(trained: TrainedModel, inputs: Any) -> str:
    """The last layer of the backbone with at least 4 rows and columns."""
    with contextlib.suppress(UserError):
        return asked.Asker(trained).usual(inputs, coarsest=False)[-1]
    raise UserError(
        "no layer of the backbone has 4 rows and columns to dream with; name layers"
    )
