"""Predicting large pictures in overlapping tiles, in one program.

A tile is as large as what the network has learnt on, and the memory that the network
needs is that of one tile. What is the task's own, to blend the answers, is in
`types.Task`; nothing here knows a model.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from detjax.data.sizing import Resize
from detjax.errors import UserError
from detjax.ops.tiling import ALIGNED, covered, tiling
from detjax.types import Inputs, Model, Task, View

ROUNDED = 128  # pixels that whole pictures are filled up to: few sizes are compiled
# How far from the side asked for one may be whose answers lie on one grid. Networks
# halve their maps, with the outermost centres on those of the picture or not.
NEAR, HALVED = 32, 8
MOST_BYTES = 4 << 30  # of what is blended pixel by pixel


@dataclasses.dataclass(frozen=True)
class Whole:
    """How a picture is seen at its own size, in the upper left corner of an input.

    tile: pixels of the sides of the tiles that it is cut into; None for one input.
    overlap: pixels that neighbouring tiles share at the least.
    held: bytes a pixel of the picture that blending needs, where it is pixel by pixel.
    """

    tile: int | None = None
    overlap: int = 0
    held: int = 0

    @property
    def step(self) -> int:
        """The most pixels between tiles."""
        assert self.tile is not None
        return max((self.tile - self.overlap) // ALIGNED * ALIGNED, 1)

    def resize(self, size: tuple[int, int], fill: tuple[int, int, int]) -> Resize:
        """The input of a picture of `size` (h, w), which is filled up to few sizes.

        Raises UserError for one whose tiles take too much memory to blend.
        """
        if self.tile is None:
            h, w = (-(-side // ROUNDED) * ROUNDED for side in size)
        else:
            h, w = (covered(side, self.tile, self.step) for side in size)
        if h * w * self.held > MOST_BYTES:
            raise UserError(
                f"a picture of {size[1]} x {size[0]} pixels takes "
                f"{h * w * self.held / 2**30:.1f} GB to blend in tiles of {self.tile} "
                "pixels, as the network's maps of them lie on no common grid; choose "
                "another side of tiles, such as a multiple of 32, or shrink the picture"
            )
        return Resize((h, w), letterbox=True, scale=1.0, fill=fill)


def whole(tile: int | None = None, overlap: int | None = None) -> Whole:
    """Pictures at their own size, in tiles if their side is given.

    `overlap` is a quarter of a tile if None. Raises UserError where tiles do not move.
    """
    if tile is None:
        if overlap is not None:
            raise UserError(f"overlap={overlap} is that of tiles; set their side too")
        return Whole()
    overlap = tile // 4 if overlap is None else overlap
    if not 0 <= overlap <= tile - ALIGNED:
        raise UserError(
            f"tiles of {tile} pixels cannot overlap by {overlap}; an overlap of 0 to "
            f"{max(tile - ALIGNED, 0)} leaves them {ALIGNED} pixels apart or more"
        )
    return Whole(tile, overlap)


def fitted(model: Model, task: Task, cut: Whole, params: Any, state: Any) -> Whole:
    """`cut`, with the side of tiles nearest to its own whose answers lie on one grid.

    Tiles are blended at the answers' own, coarse, resolution then. Where no side within
    NEAR pixels suits, it is the one asked for, and pixels are blended. Raises as
    `tiled`. Nothing is computed: answers are asked for their shapes alone.
    """
    if cut.tile is None:
        return cut
    asked = cut.tile
    tiled(model, task, cut)  # raises

    near = {side + k for side in range(0, asked + NEAR + 1, HALVED) for k in (0, 1)}
    least = max(asked - NEAR, cut.overlap + ALIGNED)
    order = sorted(near - {asked}, key=lambda side: abs(side - asked))
    held = _held(model, task, asked, params, state)
    for side in (side for side in order if least <= side <= asked + NEAR):
        if not held:
            break
        with contextlib.suppress(UserError):
            if not _held(model, task, side, params, state):
                return dataclasses.replace(cut, tile=side)
    return dataclasses.replace(cut, held=held)


def _held(model: Model, task: Task, side: int, params: Any, state: Any) -> int:
    """The bytes a pixel to blend answers to tiles with; 0 where they lie on a grid."""
    assert task.stitch is not None
    answer = jax.eval_shape(model.predict, params, state, _inputs(side))
    whole = side + ALIGNED
    cover = tiling((whole, whole), (side, side), ALIGNED)
    held = []

    def blank() -> Any:
        held.append(task.stitch(answer, cover))  # type: ignore[misc]
        return held[0].blank

    sums = jax.tree.leaves(jax.eval_shape(blank))
    size = sum(x.size * x.dtype.itemsize for x in sums) // whole**2
    return size if held[0].fine else 0


def _inputs(side: int) -> Inputs:
    """The shapes of an input that is one tile."""
    view = View(
        jax.ShapeDtypeStruct((1, 2, 3), jnp.float32),  # type: ignore[arg-type]
        jax.ShapeDtypeStruct((1, 2), jnp.int32),  # type: ignore[arg-type]
        jax.ShapeDtypeStruct((1,), bool),  # type: ignore[arg-type]
    )
    return Inputs(jax.ShapeDtypeStruct((1, side, side, 3), jnp.uint8), view)  # type: ignore[arg-type]


def tiled(model: Model, task: Task, cut: Whole) -> Model:
    """`model`, whose `predict` looks at tiles of its inputs in turn and blends them.

    Inputs are as large as `cut.resize` makes them. Raises UserError, for a task whose
    answers cannot be blended, and a model that needs more than images.
    """
    if cut.tile is None:
        return model
    if task.stitch is None:
        raise UserError(
            f"the answers of {task.name} to tiles cannot be made one; predict pictures "
            "without tiles"
        )
    if model.spec.needs:
        raise UserError(
            f"a model that needs {', '.join(model.spec.needs)} cannot look at tiles; "
            "predict pictures without them"
        )
    return model._replace(predict=_predict(model.predict, task.stitch, cut))


# Cached, so that what is compiled of it once is found again.
@functools.lru_cache(16)
def _predict(
    predict: Callable[..., Any], stitch: Callable[..., Any], cut: Whole
) -> Callable[..., Any]:
    """The `predict` of `tiled`."""
    assert cut.tile is not None
    tile = cut.tile, cut.tile

    def joined(params, state, inputs: Inputs):
        cover = tiling(inputs.images.shape[1:3], tile, cut.step)
        places = jnp.asarray(cover.places)

        def at(place):
            return predict(params, state, part(inputs, place, tile))

        made = stitch(jax.eval_shape(at, places[0]), cover)

        def follow(sums, place):
            return made.add(sums, at(place), place), None

        sums, _ = jax.lax.scan(follow, made.blank, places)
        return made.done(sums)

    return joined


def part(inputs: Inputs, place: Any, tile: tuple[int, int]) -> Inputs:
    """The tile of `inputs` that begins at `place` (y, x)."""
    images, view = jnp.asarray(inputs.images), inputs.view
    batch, *_, channels = images.shape
    start = (0, place[0], place[1], 0)
    seen = jax.lax.dynamic_slice(images, start, (batch, *tile, channels))
    if view is not None:
        shift = jnp.stack([place[1], place[0]]).astype(jnp.float32)
        affine = jnp.asarray(view.affine).at[:, :, 2].add(-shift)
        view = dataclasses.replace(view, affine=affine)
    return Inputs(seen, view)
