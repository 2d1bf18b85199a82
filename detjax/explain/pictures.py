"""Pictures as networks see them, and heat maps laid over them."""

import pathlib
from collections.abc import Sequence
from typing import Any

import cv2
import jax
import numpy as np

from detjax import draw, predict_paths
from detjax.data.handed import rgb
from detjax.errors import UserError
from detjax.predict import TrainedModel, as_rgb
from detjax.types import Inputs

# How much of a picture's colour is left below the hottest and the coldest colours.
LEAST, MOST = 0.35, 0.75
SIDE, TITLE = 300, 20  # pixels of the longer side in a grid, and of a caption's line
LETTER = 13
# What is for and against an answer.
FOR, AGAINST = np.array([214, 25, 28], "f"), np.array([24, 72, 220], "f")


def given(trained: TrainedModel, path: Any) -> tuple[np.ndarray, Inputs]:
    """A picture [h w 3] uint8, upright, and the inputs of it as a batch of one.

    path: of a file, or an image as `predict.as_rgb` takes it.

    Raises UserError that names a file that is missing or not an image.
    """
    made = trained.predictor().prepare(as_rgb(path))
    return made.image, jax.tree.map(lambda x: np.asarray(x)[None], made.inputs)


def small(
    image: np.ndarray, inputs: Inputs, side: int = SIDE
) -> tuple[np.ndarray, Inputs]:
    """A picture of at most `side` pixels, and the inputs with where it lies in them.

    What is drawn over it is made at the size at which it is shown: seven maps over a
    picture of 12 megapixels would take half a minute and gigabytes.
    """
    shrunk = draw.canvas(image, 0, side)
    if inputs.view is None:
        return shrunk, inputs
    factors = np.divide(image.shape[:2], shrunk.shape[:2])[::-1]
    affine = np.array(inputs.view.affine, np.float64)
    affine[..., :2] *= factors
    view = inputs.view.replace(affine=affine)  # type: ignore[attr-defined]
    return shrunk, inputs.replace(view=view)  # type: ignore[attr-defined]


def stems(images: Sequence[Any]) -> list[str]:
    """A name without a suffix for what is drawn of each picture, none of them twice."""
    paths = [pathlib.Path(path) for path in images]
    return [name.removesuffix(".png") for name in predict_paths.drawing_names(paths)]


def overlay(
    image: np.ndarray, heat: Any, inputs: Inputs, signed: bool = False
) -> np.ndarray:
    """`image` [h w 3] under the colours of `heat`, at its own size, uint8.

    heat: [H W], of the network's whole input at any resolution, between 0 and 1 and
        drawn from blue to red; `signed` ones between -1 and 1, from blue over nothing
        to red.
    inputs: of this image alone; their view says where in the input it lies.
    """
    image = rgb(image)
    laid = np.clip(moved(heat, image.shape[:2], inputs), -1.0 if signed else 0.0, 1.0)
    levels = np.round((laid + 1) * 127.5 if signed else laid * 255)
    shade = levels.astype(np.uint8)
    bright = cv2.applyColorMap(shade, cv2.COLORMAP_TURBO)[..., ::-1]
    if signed:
        # No colour where there is nothing: the picture in grey, red for and blue
        # against.
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None].repeat(3, axis=-1)
        base = np.float32(0.5) * grey + np.float32(127)
        bright = np.where(laid[..., None] > 0, FOR, AGAINST)
        share = np.abs(laid)[..., None]
    else:
        base = image.astype(np.float32)
        share = LEAST + (MOST - LEAST) * laid[..., None]
    return np.round(base * (1 - share) + bright * share).astype(np.uint8)


def moved(heat: Any, size: tuple[int, int], inputs: Inputs) -> np.ndarray:
    """`heat` [H W] of the network's input in the pixels of a picture, [h w] float32.

    Bilinear, with pixels' centres at (.5, .5); zero outside the input.
    """
    heat = np.ascontiguousarray(heat, np.float32)
    if heat.ndim != 2:
        raise UserError(f"a heat map has the shape {heat.shape}; give one of [H W]")
    matrix = np.eye(3)
    if inputs.view is None:
        matrix[[0, 1], [0, 1]] = np.divide(heat.shape, size)[::-1]
    else:
        matrix[:2] = np.asarray(inputs.view.affine)[0]
        coarse = np.divide(heat.shape, inputs.images.shape[1:3])[::-1]
        matrix[:2] *= coarse[:, None]
    matrix[:2, 2] += (matrix[:2, :2] @ [0.5, 0.5]) - 0.5
    return cv2.warpAffine(
        heat,
        matrix[:2],
        size[::-1],
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )


def grid(
    pictures: Sequence[np.ndarray],
    captions: Sequence[str] = (),
    columns: int = 4,
    side: int = SIDE,
) -> np.ndarray:
    """Pictures [h w 3] of any sizes row by row, each with its caption above, uint8.

    side: pixels of the longer side of each.
    """
    panels = []
    for picture, caption in zip(
        pictures, captions or [""] * len(pictures), strict=True
    ):
        panel = draw.canvas(picture, least_side=side, most_side=side)
        if captions:
            sheet = np.full((panel.shape[0] + TITLE, panel.shape[1], 3), 255, np.uint8)
            sheet[TITLE:] = panel
            limit = max(panel.shape[1] // (LETTER * 2 // 3), 4)
            panel = draw.written(
                sheet, [draw.middle_out(caption, limit)], [(1, 2)], LETTER
            )
        panels.append(panel)
    return draw.grid(panels, columns, gap=8)
