"""Pictures that can be climbed: what their numbers are, and what range they end in.

    h, w     height and width of the network's input
    f        frequencies of a row: w // 2 + 1

A picture is the free numbers of one of `CANVASES`; its pixels lie between 0, the
darkest that a file holds, and 1. The networks' own scale is found by `span`.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from detjax.errors import UserError
from detjax.explain import layers
from detjax.nn.images import STATISTICS
from detjax.types import Array, Inputs

Kind = Literal["spectrum", "pixels"]
# Square root of the covariance of colours over ImageNet's pixels, as published with
# lucid (Olah et al. 2017): rows are red, green and blue, columns what varies by itself.
COLOURS = np.array(
    [[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]], np.float32
)
DEVIATION = 0.01  # of the numbers that a picture starts from


class Canvas(NamedTuple):
    """The free numbers of a picture [h w 3], and the picture that they are."""

    start: Callable[[jax.Array], Array]  # key -> numbers
    picture: Callable[[Array], Array]  # numbers -> [h w 3] float32 in 0..1
    rate: float  # a step that suits the numbers


def spectrum(size: tuple[int, int]) -> Canvas:
    """A Fourier spectrum of decorrelated colours, through a sigmoid.

    Low frequencies have more weight, as they have in photographs, so that a step of
    equal length in all numbers paints shapes before it paints noise. Olah, Mordvintsev
    and Schubert, "Feature Visualization", Distill 2017, "preconditioning".
    """
    h, w = size
    rows, columns = np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w)[None]
    frequencies = np.hypot(rows, columns)
    scale = (h * w) ** 0.5 / np.maximum(frequencies, 1 / max(h, w))
    scale = jnp.asarray(scale[..., None], jnp.float32)
    colours = jnp.asarray(COLOURS / np.linalg.norm(COLOURS, axis=0).max())

    def start(key: jax.Array) -> Array:
        return DEVIATION * jax.random.normal(key, (h, columns.size, 3, 2))

    def picture(numbers: Array) -> Array:
        waves = jax.lax.complex(numbers[..., 0], numbers[..., 1]) * scale
        # lucid's factor, which keeps the first pictures away from the sigmoid's ends
        values = jnp.fft.irfft2(waves, s=size, axes=(0, 1)) / 4
        return jax.nn.sigmoid(values @ colours.T)

    return Canvas(start, picture, 0.05)


def pixels(size: tuple[int, int]) -> Canvas:
    """The pixels themselves, from grey; what leaves the range is clipped.

    Simonyan, Vedaldi and Zisserman, "Deep inside convolutional networks", 2014.
    """

    def start(key: jax.Array) -> Array:
        return DEVIATION * jax.random.normal(key, (*size, 3))

    def picture(numbers: Array) -> Array:
        return jnp.clip(numbers + 0.5, 0, 1)

    return Canvas(start, picture, 0.02)


CANVASES = {"spectrum": spectrum, "pixels": pixels}


def span(
    predict: layers.Predict, params: Any, state: Any, inputs: Inputs
) -> tuple[Array, Array]:
    """The normalised values [3] of black and of white, whatever the network's scale.

    Found by normalising both; ImageNet's for networks of images that are normalised
    already. Under jit only the normalisation is computed.
    """
    if jnp.issubdtype(inputs.images.dtype, jnp.floating):
        mean, std = (jnp.asarray(x, jnp.float32) for x in STATISTICS["imagenet"])
        return -mean / std, (255 - mean) / std

    def normalised(value: int) -> Array:
        plain = inputs.replace(images=jnp.full_like(inputs.images, value))  # type: ignore[attr-defined]
        _, held = layers.seen(predict, [layers.IMAGES])(params, state, plain)
        return held[layers.IMAGES].reshape(-1, 3)[0].astype(jnp.float32)

    found = layers.shapes(predict, params, state, inputs)
    if layers.IMAGES not in found:
        raise UserError(
            "the model does not normalise its images where they can be seen; choose a "
            "model whose layers have the name 'images'"
        )
    return normalised(0), normalised(255)


def repeated(inputs: Inputs, count: int) -> Inputs:
    """`inputs` of one image, `count` times."""
    return jax.tree.map(lambda x: jnp.repeat(x[:1], count, axis=0), inputs)


def as_bytes(picture: Array) -> np.ndarray:
    """A picture in 0..1 as uint8."""
    return np.rint(np.clip(np.asarray(picture), 0, 1) * 255).astype(np.uint8)
