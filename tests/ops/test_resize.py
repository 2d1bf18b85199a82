"""Interpolation against a loop, its gradient against its transpose."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from detjax.ops import resize
from tests import reference

SIZES = [(14, 10), (13, 9), (3, 2), (7, 5), (1, 20)]


def image(dtype=np.float32):
    return np.random.default_rng(0).random((7, 5, 3)).astype(dtype)


@pytest.mark.parametrize("size", SIZES)
def test_bilinear_is_the_loop(size):
    expected = reference.bilinear(image(), size)
    np.testing.assert_allclose(resize.bilinear(image(), size), expected, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_bilinear_gradient_is_the_transpose(size):
    x, y = jnp.asarray(image()), jax.random.normal(jax.random.key(0), (*size, 3))
    gradient = jax.grad(lambda x: jnp.vdot(resize.bilinear(x, size), y))(x)
    tangent = jax.random.normal(jax.random.key(1), x.shape)
    _, moved = jax.jvp(lambda x: resize.bilinear(x, size), (x,), (tangent,))
    np.testing.assert_allclose(moved, resize.bilinear(tangent, size), atol=1e-5)
    np.testing.assert_allclose(
        jnp.vdot(gradient, tangent), jnp.vdot(moved, y), rtol=1e-4
    )


def test_bilinear_doubles_by_quarters():
    x = np.array([0, 4, 8], np.float32)[:, None, None]
    got = resize.bilinear(x, (6, 1))[:, 0, 0]
    np.testing.assert_array_equal(got, [0, 1, 3, 5, 7, 8])


def test_bilinear_under_jit_and_vmap():
    x = np.stack([image(), 1 - image()])
    batched = jax.jit(jax.vmap(lambda x: resize.bilinear(x, (13, 9))))(x)
    looped = np.stack([resize.bilinear(one, (13, 9)) for one in x])
    np.testing.assert_allclose(batched, looped, atol=1e-6)
    gradient = jax.vmap(jax.grad(lambda x: resize.bilinear(x, (13, 9)).sum()))(x)
    np.testing.assert_allclose(gradient.sum((1, 2)), 13 * 9, rtol=1e-5)


def test_bilinear_keeps_the_type():
    x = jnp.asarray(image(), jnp.bfloat16)
    y = resize.bilinear(x, (14, 10))
    assert y.dtype == jnp.bfloat16
    expected = reference.bilinear(np.asarray(x, np.float32), (14, 10))
    np.testing.assert_allclose(np.asarray(y, np.float32), expected, atol=4e-3)


def test_nearest():
    x = np.arange(5)[:, None, None]
    assert resize.nearest(x, (10, 1))[:, 0, 0].tolist() == [
        0,
        0,
        1,
        1,
        2,
        2,
        3,
        3,
        4,
        4,
    ]
    assert resize.nearest(x, (3, 1))[:, 0, 0].tolist() == [0, 1, 3]
    assert resize.nearest(image(), (7, 5)).tolist() == image().tolist()
    # .9 is a little less in float32, and ten times that is 9 all the same.
    tall = np.arange(288)[:, None, None]
    assert resize.nearest(tall, (320, 1))[::10, 0, 0].tolist() == list(range(0, 288, 9))


def test_nearest_is_torchs():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    for n, out in rng.integers(100, 640, (12, 2)):
        x = np.arange(n, dtype=np.float32)
        theirs = torch.nn.functional.interpolate(torch.tensor(x)[None, None], int(out))
        ours = resize.nearest(x[:, None, None], (int(out), 1))
        assert np.array_equal(np.asarray(ours)[:, 0, 0], theirs[0, 0].numpy())
