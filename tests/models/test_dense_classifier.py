"""A classifier of patches at every place: literally, and as one convolution."""

import dense_cases as cases
import jax
import numpy as np
import pytest
from families import TINY_PIXELS as TINY

from detjax import models
from detjax.errors import UserError

PATCH = {"features": (6, 8), "kernel": 3, "hidden": 16}


def made(**changes):
    return models.make(**{**TINY["dense_classifier"], **changes})


@pytest.mark.parametrize(
    ("step", "side", "size"),
    [(1, 17, (12, 15)), (1, 20, (12, 15)), (2, 18, (12, 16)), (4, 21, (14, 17))],
)
def test_windows_and_convolution_are_one(step, side, size):
    data = cases.batch(size=size)
    kinds = {"patch": {**PATCH, "side": side}, "step": step}
    one, other = made(**kinds), made(**kinds, mode="windows", chunk=7)
    params, state = cases.started(one, data)
    expected = jax.jit(other.predict)(params, state, data.inputs).logits
    found = jax.jit(one.predict)(params, state, data.inputs).logits
    assert found.shape == expected.shape
    assert float(found.std()) > 0.01
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_patch_is_about_its_pixel():
    """An even one's middle lies half a pixel behind it."""
    model = made(patch={**PATCH, "side": 18}, pixels="normalized")
    images = np.random.default_rng(0).random((1, 31, 31, 3)).astype(np.float32)
    params, _ = model.init(jax.random.key(0), images)

    def score(images):
        return model.net.apply({"params": params}, images)[0][0, 15, 15].sum()

    reached = np.argwhere(np.asarray(jax.grad(score)(images)[0]).any(axis=-1))
    low, high = reached.min(axis=0), reached.max(axis=0)
    assert (low >= 15 - 8).all()
    assert (high <= 15 + 9).all()
    np.testing.assert_allclose((low + high) / 2, 15.5, atol=1)


def test_patches_learn_what_the_image_does():
    """The mean over many drawn patches is that over all pixels."""
    data = cases.batch(size=(16, 20))
    whole, some = made(), made(patches=2000)
    params, state = cases.started(whole, data)
    expected, (_, known) = whole.loss(params, state, data, jax.random.key(0))
    found, (_, metrics) = jax.jit(some.loss)(params, state, data, jax.random.key(0))
    assert metrics.keys() == known.keys()
    assert float(found) == pytest.approx(float(expected), rel=0.05)
    ignored = cases.junk(data)
    again, _ = jax.jit(some.loss)(params, state, ignored, jax.random.key(0))
    assert float(again) == pytest.approx(float(found), rel=1e-6)
    filled, _ = jax.jit(whole.loss)(
        params, state, cases.with_filler(data), jax.random.key(0)
    )
    assert float(filled) == pytest.approx(float(expected), rel=1e-5)


def test_it_learns_colours():
    import optax

    data = cases.batch(size=(24, 24))
    model = made(patches=32)
    params, state = cases.started(model, data)
    optimizer = optax.adam(1e-2)
    memory = optimizer.init(params)

    @jax.jit
    def step(params, memory, key):
        _, gradients = jax.value_and_grad(model.loss, has_aux=True)(
            params, state, data, key
        )
        updates, memory = optimizer.update(gradients, memory)
        return optax.apply_updates(params, updates), memory

    for key in jax.random.split(jax.random.key(0), 60):
        params, memory = step(params, memory, key)
    logits = model.predict(params, state, data.inputs).logits
    right = np.asarray(logits.argmax(axis=-1)) == data.target.labels
    assert right[data.target.valid].mean() > 0.9


def test_what_does_not_fit_is_told():
    with pytest.raises(UserError, match=r"model\.step=3 must be 1 or a power of 2"):
        made(step=3)
    with pytest.raises(UserError, match="leaves nothing"):
        made(patch={**PATCH, "side": 5})
