"""The view `activations`: what layers return, and what their units answer to most."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from detjax import draw, files
from detjax.errors import UserError
from detjax.explain import activations, layers, pictures, splits
from detjax.explain import patches as strongest
from detjax.predict import TrainedModel
from detjax.settings import Count, Pattern, Whole

LIST = "layers.txt"
LAYERS = 8  # that are drawn at most, where a pattern fits more
FILTER = 40  # pixels of a filter, at least
CROP = 96  # pixels of a patch
AROUND = 8  # pixels of the input that a patch has at least on each side of its place


def view(
    trained: TrainedModel,
    images: Sequence[Path],
    out: Path,
    *,
    layer: Pattern = "",
    channels: Count = 24,
    filters: bool = False,
    patches: Whole = 0,
    units: tuple[Whole, ...] = (),
    split: str = "val",
    limit: Whole = 0,
) -> list[Path]:
    """Channels of layers for each picture, and layers.txt with the names of all layers.

    layer: a regular expression; of the layers whose names it fits wholly, or else in
        part, at most 8 are drawn. Without one the names are listed and nothing is
        drawn but what is asked for below.
    channels: of each layer, the busiest of a picture.
    filters: also draw the kernels of the first layer, which see colours.
    patches: of each unit, from the run's data set, that it answers to most.
    units: channels whose patches are shown; the first 8 if none is given.
    split: of the data set, that patches are from.
    limit: pictures of it that are looked at; 0 is all.
    """
    _, inputs = pictures.given(trained, images[0])
    weights = trained.params, trained.state
    known = layers.shapes(trained.model.predict, *weights, inputs)
    listed = out / LIST
    lines = [f"{k}  {' x '.join(map(str, x.shape[1:]))}" for k, x in known.items()]
    files.write_text(listed, "\n".join(lines) + "\n")
    paths = [listed]
    names = chosen(known, layer) if layer else []
    if filters:
        paths.append(out / "filters.png")
        tiles = activations.filters(first_kernel(trained.params))
        # Enlarged by whole numbers, so that weights are squares.
        by = -(-FILTER // max(tiles.shape[1:3]))
        tiles = tiles.repeat(by, axis=1).repeat(by, axis=2)
        side = max(tiles.shape[1:3])
        draw.save(paths[-1], pictures.grid([*tiles], (), 16, side=side))
    see = jax.jit(layers.seen(trained.model.predict, names))
    stems = pictures.stems(images)
    for path, stem in zip(images, stems, strict=True) if names else ():
        _, inputs = pictures.given(trained, path)
        _, found = see(*weights, inputs)
        for name in names:
            x = activations.maps_of(found[name][0], name)
            which, _ = activations.busiest(x, channels)
            sheet = activations.sheet(np.asarray(x), np.asarray(which))
            paths.append(out / f"{stem}-{safe(name)}.png")
            draw.save(paths[-1], sheet)
    if patches:
        if len(names) != 1:
            raise UserError(
                f"patches are of one layer, and layer={layer!r} fits {len(names)}; "
                f"{listed} has the names of all"
            )
        paths += _patches(trained, names[0], out, patches, units, split, limit)
    return paths


def chosen(known: Any, pattern: str) -> list[str]:
    """The names that `pattern` fits wholly; if there is none, those it fits in part.

    Raises UserError where there is none either.
    """
    whole = [name for name in known if re.fullmatch(pattern, name)]
    found = whole or [name for name in known if re.search(pattern, name)]
    if not found:
        raise UserError(
            f"layer={pattern!r} fits none of the {len(known)} layers, whose last are "
            f"{', '.join([*known][-3:])}; {LIST} has all"
        )
    return found[:LAYERS]


def safe(name: str) -> str:
    """`name` as a part of a file's name."""
    return re.sub(r"[^\w.-]", "_", name)


def first_kernel(params: Any) -> np.ndarray:
    """The first kernel that sees three colours. Raises UserError if there is none."""
    for _, leaf in jax.tree_util.tree_leaves_with_path(params):
        if leaf.ndim == 4 and leaf.shape[2] == 3:
            return np.asarray(leaf)
    raise UserError("the model has no layer whose kernels see colours")


def _patches(
    trained: TrainedModel,
    layer: str,
    out: Path,
    count: int,
    units: tuple[int, ...],
    split: str,
    limit: int,
) -> list[Path]:
    """A row of patches for each unit, cut where its place of the layer looks."""
    predict, weights = trained.model.predict, (trained.params, trained.state)
    found: Any = None
    images: dict[int, np.ndarray] = {}
    # Of maps of the layer, by the size of the inputs, of which a run has several where
    # it has buckets.
    grids: dict[tuple[int, int], tuple[int, int]] = {}
    program = jax.jit(strongest.strongest(predict, layer))
    number = 0
    for batch in splits.batches(trained, split, limit):
        inputs = batch.inputs
        size = inputs.images.shape[1:3]
        if size not in grids:
            shape = layers.find(predict, *weights, inputs, layer).shape
            grids[size] = shape[1:3] if len(shape) == 4 else (1, 1)
        if found is None:
            given = units or tuple(range(min(8, shape[-1])))
            if max(given) >= shape[-1]:
                raise UserError(
                    f"the layer {layer!r} has {shape[-1]} units; units={max(given)} is "
                    "none of them"
                )
            found = strongest.nothing(len(given), count)
        real = np.asarray(inputs.view.valid)
        numbers = np.where(real, number + np.cumsum(real) - 1, -1)
        found = program(*weights, inputs, jnp.array(given), jnp.array(numbers), found)
        # Only the pictures that are among the best are kept.
        kept = {*np.unique(np.asarray(found.images)).tolist()}
        images = {k: v for k, v in images.items() if k in kept}
        for i, n in enumerate(numbers.tolist()):
            if n in kept and n >= 0:
                images[n] = np.asarray(inputs.images[i])
        number += int(real.sum())
    if found is None:
        raise UserError(f"the split {split!r} has no picture; choose another")
    reaches = {
        size: _reach(trained, layer, grids[size], size)
        for size in {image.shape[:2] for image in images.values()}
    }
    panels, captions = [], []
    answers, owners, places = map(
        np.asarray, (found.answers, found.images, found.places)
    )
    for u, unit in enumerate(given):
        for k in range(count):
            if owners[u, k] < 0:
                continue
            image = images[owners[u, k]]
            size = image.shape[:2]
            centre = (places[u, k] + 0.5) * np.divide(size, grids[size])
            panels.append(_cut(image, centre, reaches[size]))
            captions.append(f"{unit}: {answers[u, k]:.2f}")
    path = out / f"patches-{safe(layer)}.png"
    draw.save(path, pictures.grid(panels, captions, count, side=CROP))
    return [path]


def _reach(
    trained: TrainedModel, layer: str, rows_columns: tuple[int, int], size: Any
) -> np.ndarray:
    """How far [2] from its centre a place of the layer sees, in pixels of the input."""
    noise = np.random.default_rng(0).integers(0, 256, (1, *size, 3), np.uint8)
    _, inputs = pictures.given(trained, noise[0])
    # Of that size, whatever the run resizes pictures to.
    inputs = inputs.replace(images=noise.astype(inputs.images.dtype))  # type: ignore[attr-defined]
    middle = np.array(rows_columns) // 2
    call = jax.jit(strongest.receptive(trained.model.predict, layer, rows_columns))
    x1, y1, x2, y2 = np.asarray(
        call(trained.params, trained.state, inputs, jnp.asarray(middle))
    )
    return np.maximum(np.array([y2 - y1, x2 - x1]) / 2, AROUND)


def _cut(image: np.ndarray, centre: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """The part of `image` within `reach` of `centre`, both (y, x), moved inside."""
    h, w = image.shape[:2]
    side = np.minimum(np.round(2 * reach).astype(int), (h, w))
    top, left = np.clip(
        np.round(centre - side / 2).astype(int), 0, np.array([h, w]) - side
    )
    return image[top : top + side[0], left : left + side[1]]
