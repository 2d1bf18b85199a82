"""Maps of numbers: from the device to the pixels of the original picture."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from detjax.data import moved_maps
from detjax.data.frames import scaling
from detjax.ops import resize
from detjax.ops.tiling import Stitched, Tiling, blended
from detjax.types import ValueMap


class Found(NamedTuple):
    """The numbers of the pixels of one image."""

    values: np.ndarray  # [h w] float32
    valid: np.ndarray | None = (
        None  # [h w] bool: the pixels that are known, all if None
    )


def shrink(answers: ValueMap) -> ValueMap:
    """The values of a batch, as coarse as the network made them."""
    return ValueMap(answers.values)


def mirror(
    answers: ValueMap, size: tuple[int, int], names: tuple[str, ...]
) -> ValueMap:
    """`answers` as in the mirror image."""
    return ValueMap(answers.values[:, :, ::-1])


def rescale(answers: ValueMap, scale: tuple[float, float]) -> ValueMap:
    """The same: a value does not change with the size of its picture."""
    return answers


def merge(answers: Sequence[ValueMap], iou: float) -> ValueMap:
    """The mean values, on the finest of the grids."""
    grids = [answer.values.shape[1:] for answer in answers]
    grid = max(grids, key=lambda sides: sides[0] * sides[1])
    alike = (
        answer.values
        if answer.values.shape[1:] == grid
        else jax.vmap(lambda one: resize.bilinear(one[..., None], grid)[..., 0])(
            answer.values
        )
        for answer in answers
    )
    return ValueMap(sum(alike) / len(answers))


def stitch(answer: ValueMap, tiling: Tiling) -> Stitched:
    """How answers like `answer` (shapes) to tiles become one: their mean values."""
    grid = tiling.grid(answer.values.shape[1:], False)
    fine = grid is None
    if grid is None:
        grid = tiling.grid(tiling.tile, False)
        assert grid is not None

    def values(one: ValueMap) -> jax.Array:
        found = one.values[..., None]
        return (
            jax.vmap(lambda x: resize.bilinear(x, tiling.tile))(found)
            if fine
            else jnp.asarray(found)
        )

    batch = answer.values.shape[0]
    return blended(grid, batch, 1, values, lambda total: ValueMap(total[..., 0]), fine)


def restore(
    answer: ValueMap,
    affine: np.ndarray,
    size: tuple[int, int],
    network_size: tuple[int, int],
    min_score: float = 0.0,
) -> Found:
    """The values of one image's own pixels, of `size` (h, w), interpolated.

    `affine` [2 3] maps original pixels to those of the network's input of
    `network_size`, which the values span.
    """
    values = np.asarray(answer.values, np.float32)
    steps = np.divide(network_size, values.shape)
    back = np.linalg.inv(np.vstack([affine, [0, 0, 1]])) @ scaling(steps[1], steps[0])
    return Found(moved_maps.bilinear(values, back, size)[0])


def confident(found: Found, min_score: float) -> Found:
    """The same: values have no score."""
    return found


def entries(
    found: Found, image_id: int | str, category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """One entry: the least, the mean and the greatest value, and three quantiles."""
    values = known(found)
    if not len(values):
        return []
    named = {"category_id": category_ids[0]} if len(category_ids) == 1 else {}
    quarters = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
    return [
        {
            "image_id": image_id,
            **named,
            "least": float(values.min()),
            "mean": float(values.mean(dtype=np.float64)),
            "greatest": float(values.max()),
            "quartiles": quarters,
        }
    ]


def known(found: Found) -> np.ndarray:
    """The values [n] that are known and finite."""
    values = found.values if found.valid is None else found.values[found.valid]
    return values[np.isfinite(values)]
