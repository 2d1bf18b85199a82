"""Class activation maps of layers as one map of the picture.

In the way of pytorch-grad-cam, whose figures are compared with.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import struct

from detjax.errors import UserError
from detjax.explain import layers
from detjax.ops import resize
from detjax.types import Array, Inputs

# The activation that follows a layer, where no module computes it.
After = Literal["", "relu", "relu6"]
ACTIVATIONS: dict[After, Callable[[Array], Array]] = {
    "": lambda x: x,
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
}


@struct.dataclass
class Maps:
    """Class activation maps of a batch; q quantities of each image.

    Of methods that ask for no quantity q is 1, and `quantities` is None.
    """

    maps: Array  # [b q H W] float32 between 0 and 1, at the size of the inputs
    raw: dict[str, Array]  # [b q h w] by layer: signed, at the layer's size
    # [b q c] by layer: of its channels, of methods that weigh them
    weights: dict[str, Array]
    quantities: Array | None = None  # [b q]


def scaled(x: Array) -> Array:
    """A map [h w] from 0 to 1: less its minimum, over its maximum."""
    x = x - x.min()
    return x / (1e-7 + x.max())


def joined(raw: Mapping[str, Array], size: tuple[int, int]) -> Array:
    """Raw maps [... h w] of several layers as one [... H W] of `size`, from 0 to 1.

    What is positive counts. Each is scaled and resized, bilinearly with pixels' centres
    at (.5, .5), their mean is scaled again.
    """

    def one(raw: Mapping[str, Array]) -> Array:
        each = [
            resize.bilinear(scaled(jax.nn.relu(x))[..., None], size)[..., 0]
            for x in raw.values()
        ]
        return scaled(sum(each) / len(each))

    *lead, _, _ = next(iter(raw.values())).shape
    flat = {name: x.reshape(-1, *x.shape[-2:]) for name, x in raw.items()}
    return jax.vmap(one)(flat).reshape(*lead, *size)


def size_of(inputs: Inputs, size: tuple[int, int] | None) -> tuple[int, int]:
    """`size`, or (h, w) of the inputs."""
    h, w = inputs.images.shape[1:3] if size is None else size
    return h, w


def check(
    predict: layers.Predict, params: Any, state: Any, inputs: Inputs, *names: str
) -> None:
    """Raises UserError unless all layers are there and return a map of each image."""
    images = len(inputs.images)
    known = layers.shapes(predict, params, state, inputs)
    for name in names:
        if name not in known:
            layers.find(predict, params, state, inputs, name)  # raises
        shape = known[name].shape
        if len(shape) != 4 or shape[0] != images:
            raise UserError(
                f"the layer {name!r} returns {shape} of {images} images; class "
                "activation maps are of layers that return [b h w c], such as the "
                "backbone's"
            )


def values_of(x: Array, after: After) -> Array:
    """What a layer returns in float32, as the activation after it leaves that."""
    return ACTIVATIONS[after](jnp.asarray(x, jnp.float32))
