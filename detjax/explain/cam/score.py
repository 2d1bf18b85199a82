"""Score-CAM (Wang et al. 2020): channels by what the image says where they are."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from detjax.explain import layers
from detjax.explain.cam.scaled import After, Maps, check, joined, size_of, values_of
from detjax.ops import resize
from detjax.types import Array, Inputs

CHUNK = 16  # channels whose passes are done at once


def masks(values: Array, size: tuple[int, int]) -> Array:
    """Channels [h w c] as masks [H W c] of the image, each from 0 to 1.

    Resized bilinearly with aligned corners.
    """
    x = resize.bilinear(values, size, True)
    low, high = x.min(axis=(0, 1)), x.max(axis=(0, 1))
    return (x - low) / (high - low + 1e-8)


def maps(
    predict: layers.Predict,
    names: Sequence[str],
    quantity: layers.Quantity,
    *,
    size: tuple[int, int] | None = None,
    after: After = "",
    chunk: int = CHUNK,
) -> Callable[[Any, Any, Inputs], Maps]:
    """(params, state, inputs) -> `Maps`: a pass for each channel, none backward.

    The weights are the softmax over channels of the quantity of the normalised image
    under each of them: section 3.2, without a baseline, as pytorch-grad-cam does. A
    quantity has to be of the same thing in each of these images: of detections their
    place in the list is not.

    chunk: channels whose passes are done at once. Other arguments are those of
        `gradients.maps`.

    Raises UserError for a layer that is not there or has no map.
    """

    def call(params: Any, state: Any, inputs: Inputs) -> Maps:
        check(predict, params, state, inputs, layers.IMAGES, *names)
        answers, held = layers.seen(predict, [layers.IMAGES, *names])(
            params, state, inputs
        )
        images = held.pop(layers.IMAGES)

        def scored(mask: Array) -> Array:
            """The quantities [b q] of the images under a mask [b H W]."""
            under = (images * mask[..., None]).astype(images.dtype)
            seen = layers.changed(predict, {layers.IMAGES: lambda _: under})
            return quantity(seen(params, state, inputs))

        raw, weights = {}, {}
        for name in names:
            values = values_of(held[name], after)

            def of_channel(channel: Array, values: Array = values) -> Array:
                one = jnp.take(values, channel[None], axis=-1)
                return scored(
                    jax.vmap(masks, (0, None))(one, images.shape[1:3])[..., 0]
                )

            channels = jnp.arange(values.shape[-1])
            scores = jax.lax.map(of_channel, channels, batch_size=chunk)  # [c b q]
            weights[name] = jax.nn.softmax(jnp.moveaxis(scores, 0, -1), axis=-1)
            raw[name] = jnp.einsum("bhwc,bqc->bqhw", values, weights[name])
        return Maps(joined(raw, size_of(inputs, size)), raw, weights, quantity(answers))

    return call
