"""Corner pooling, against loops that sweep from the far side."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from detjax.ops import corner_pool

# The axis, and whether the sweep begins at its far end.
SWEEPS = {
    "top": (0, True),
    "bottom": (0, False),
    "left": (1, True),
    "right": (1, False),
}


def slowly(x, axis, reverse, weights):
    """Maxima, and the gradient of their sum by `weights`."""
    out, slope = np.zeros_like(x), np.zeros_like(x)
    x, out_, slope_, weights = (
        np.moveaxis(v, axis, 0) for v in (x, out, slope, weights)
    )
    for rest in np.ndindex(x.shape[1:]):
        best = None
        order = range(len(x))
        for i in reversed(order) if reverse else order:
            if best is None or x[(i, *rest)] > x[(best, *rest)]:
                best = i
            out_[(i, *rest)] = x[(best, *rest)]
            slope_[(best, *rest)] += weights[(i, *rest)]
    return out, slope


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize("name", SWEEPS)
def test_maxima_and_gradients_are_those_of_a_loop(monkeypatch, name, backend):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    rng = np.random.default_rng(3)
    # Few values, so that many are equal.
    x = rng.integers(-3, 3, (7, 6, 5)).astype("f")
    weights = rng.integers(-4, 5, x.shape).astype("f")
    pool = getattr(corner_pool, name)
    out, back = jax.vjp(pool, jnp.asarray(x))
    expected, slope = slowly(x, *SWEEPS[name], weights)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(back(jnp.asarray(weights))[0], slope)


def test_a_batch_is_pooled_as_its_images():
    x = jax.random.normal(jax.random.key(0), (2, 4, 3, 2))
    found = jax.vmap(corner_pool.left)(x)
    assert jnp.array_equal(found[1], corner_pool.left(x[1]))
