"""Gradients in parts are those of the whole where the loss is a mean over images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import batch

from detjax import accumulate, sharding
from detjax.errors import UserError


def loss(params, state, data, key):
    """A mean over images, with a statistic that counts and noise."""
    images = jnp.float32(data.inputs.images) / 255
    y = images.mean(axis=(1, 2)) @ params["w"]
    after = {"n": state["n"] + len(images)}
    return jnp.mean(y**2), (after, {"noise": jax.random.normal(key), "y": jnp.mean(y)})


PARAMS, STATE = {"w": jnp.arange(3.0)}, {"n": jnp.float32(0)}


@pytest.mark.parametrize("devices, parts", [(1, 1), (1, 4), (4, 2)])
def test_parts_give_the_gradient_of_the_whole(devices, parts):
    layout = sharding.make(devices=jax.devices()[:devices])
    data = layout.put(batch(8))
    key = jax.random.key(0)
    (value, (_, metrics)), gradients = jax.value_and_grad(loss, has_aux=True)(
        PARAMS, STATE, batch(8), key
    )
    call = jax.jit(accumulate.value_and_grad(loss, parts, layout))
    (found, (state, means)), summed = call(PARAMS, STATE, data, key)
    np.testing.assert_allclose(found, value, rtol=1e-6)
    np.testing.assert_allclose(summed["w"], gradients["w"], rtol=1e-5)
    np.testing.assert_allclose(means["y"], metrics["y"], rtol=1e-6)
    assert state["n"] == 8  # each part went on from the statistics of the one before
    # A part draws numbers of its own.
    assert (means["noise"] == metrics["noise"]) == (parts == 1)


def test_devices_keep_their_images():
    data = accumulate.in_parts(batch(8), 2, 2)
    assert data.inputs.images.shape[:2] == (2, 4)
    # Of eight images on two devices, four each, a part has two of each.
    np.testing.assert_array_equal(data.index, batch(8).index.reshape(4, 2).T)
    # So the program that divides a batch moves nothing between devices.
    layout = sharding.make(devices=jax.devices()[:4])
    compiled = (
        jax.jit(lambda x: accumulate.in_parts(x, 2, 4), out_shardings=None)
        .lower(layout.put(batch(8)))
        .compile()
    )
    text = compiled.as_text()
    assert not any(op in text for op in ("all-to-all", "all-gather", "permute"))


def test_batches_that_do_not_divide_are_a_sentence():
    with pytest.raises(UserError, match=r"set data\.batch_size to a multiple of 12"):
        accumulate.in_parts(batch(8), 3, 4)


def test_memory_falls():
    """The activations of a convolution are those of a part."""

    def deep(params, state, data, key):
        x = jnp.float32(data.inputs.images)
        for _ in range(4):
            x = jnp.sin(x * params["w"])
        return jnp.mean(x), (state, {})

    layout = sharding.make(devices=jax.devices()[:1])

    def temporary(parts):
        call = jax.jit(accumulate.value_and_grad(deep, parts, layout))
        args = PARAMS, STATE, batch(16), jax.random.key(0)
        return call.lower(*args).compile().memory_analysis().temp_size_in_bytes

    assert temporary(8) < 0.4 * temporary(1)
