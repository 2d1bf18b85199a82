"""Crops of a batch's boxes, and a function of all of them a few at a time.

    b images
    k        boxes of the batch, of any of its images
    s        side of a crop

Girshick et al. 2014 (R-CNN), section 2.1 and appendix A.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from detjax.errors import UserError
from detjax.ops import warp
from detjax.settings import Count, Whole
from detjax.types import Array


class Stack(NamedTuple):
    """Boxes of a batch on one tall picture, its images below one another."""

    picture: Array  # [b*h w 3]
    boxes: Array  # [k 4]
    frames: Array  # [k 4]: the window of each box's own image


@dataclasses.dataclass(frozen=True)
class Warp:
    """Settings of the crops that boxes are stretched to.

    size: the crops' side in pixels.
    padding: those of them on each side that show what is around the box.
    chunk: crops that pass the network at once where all proposals do.

    Raises UserError where `padding` fills the crop.
    """

    size: Count = 227
    padding: Whole = 16
    chunk: Count = 64

    def __post_init__(self):
        if 2 * self.padding >= self.size:
            raise UserError(
                f"warp.padding={self.padding} leaves nothing of a crop of {self.size} "
                "pixels"
            )

    def crops(self, stack: Stack) -> Array:
        """Crops [k s s 3] of the stack's boxes; what lies outside its frame is 0."""
        return warp.warp(*stack, size=self.size, padding=self.padding)

    def by_chunks(
        self, function: Callable[[Array], Any], stack: Stack, valid: Array
    ) -> Any:
        """`function` of all crops [k s s 3], `chunk` at a time; a tree of [k ...].

        It is not computed for chunks without a box that is `valid` [k]: there it is 0.
        """
        stack, valid = jax.tree.map(jnp.asarray, (stack, valid))
        total = len(valid)
        chunk = min(self.chunk, total)
        order = jnp.argsort(~valid, stable=True)
        padded = jnp.concatenate([order, jnp.zeros(-total % chunk, order.dtype)])
        places = padded.reshape(-1, chunk)

        def one(place):
            boxes, frames = stack.boxes[place], stack.frames[place]
            return function(self.crops(Stack(stack.picture, boxes, frames)))

        def some(place):
            nothing = jax.tree.map(
                lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(one, place)
            )
            return lax.cond(valid[place].any(), one, lambda _: nothing, place)

        found = lax.map(some, places)
        back = jnp.zeros(total, order.dtype).at[order].set(jnp.arange(total))
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[back], found)


def stacked(images: Array, boxes: Array, windows: Array, index: Array) -> Stack:
    """Boxes [k 4] of the images `index` [k] of a batch, inside `windows` [b 4]."""
    b, h, w, d = images.shape
    down = jnp.stack([jnp.zeros(b), jnp.arange(b) * h], 1)[index]
    down = jnp.tile(down, 2).astype(jnp.float32)
    frames = windows[index] + down
    return Stack(images.reshape(b * h, w, d), boxes + down, frames)
