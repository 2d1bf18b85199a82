"""Deformable convolution against a loop over pixels and taps, and its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from detjax.ops import deform


def read(x, row, column):
    """`x` at (row, column), bilinear, zeros around it: from the definition."""
    h, w, c = x.shape
    total = np.zeros(c)
    for i in range(int(np.floor(row)), int(np.floor(row)) + 2):
        for j in range(int(np.floor(column)), int(np.floor(column)) + 2):
            if 0 <= i < h and 0 <= j < w:
                total += x[i, j] * (1 - abs(row - i)) * (1 - abs(column - j))
    return total


def loop(x, offsets, weights, kernel, stride, padding):
    kh, kw, _, o = kernel.shape
    oh, ow = offsets.shape[:2]
    out = np.zeros((oh, ow, o))
    for i in range(oh):
        for j in range(ow):
            for t in range(kh * kw):
                dy, dx = offsets[i, j, t]
                row = i * stride - padding + t // kw + dy
                column = j * stride - padding + t % kw + dx
                value = read(x, row, column) * weights[i, j, t]
                out[i, j] += value @ kernel[t // kw, t % kw]
    return out


def case(seed=0, h=7, w=9, c=3, o=4, k=3, stride=1, spread=2.0):
    rng = np.random.default_rng(seed)
    oh, ow = (h - 1) // stride + 1, (w - 1) // stride + 1
    return (
        rng.standard_normal((h, w, c)).astype("f"),
        (spread * rng.standard_normal((oh, ow, k * k, 2))).astype("f"),
        rng.random((oh, ow, k * k)).astype("f"),
        rng.standard_normal((k, k, c, o)).astype("f"),
    )


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("spread", [0.5, 8.0])
def test_is_the_loop(stride, spread):
    parts = case(stride=stride, spread=spread)
    got = deform.conv(*parts, stride=stride, padding=1)
    np.testing.assert_allclose(got, loop(*parts, stride, 1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stride", [1, 2])
def test_without_offsets_is_a_convolution(stride):
    x, offsets, weights, kernel = case(stride=stride)
    got = deform.conv(
        x, np.zeros_like(offsets), np.ones_like(weights), kernel, stride=stride
    )
    expected = jax.lax.conv_general_dilated(
        x[None],
        kernel,
        (stride, stride),
        [(1, 1), (1, 1)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )[0]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_gradients_are_those_of_finite_differences():
    parts = [jnp.asarray(p) for p in case(h=4, w=5, c=2, o=2)]
    # Away from whole pixels, where bilinear reading has a kink.
    parts[1] = jnp.floor(parts[1]) + 0.3 + 0.4 * (parts[1] - jnp.floor(parts[1]))
    rng = np.random.default_rng(1)
    weigh = rng.standard_normal((4, 5, 2)).astype("f")

    def loss(parts):
        return jnp.sum(deform.conv(*parts) * weigh)

    gradients = jax.grad(loss)(parts)
    for i, part in enumerate(parts):
        way = rng.standard_normal(part.shape).astype("f")
        moved = [
            float(loss([*parts[:i], part + e * way, *parts[i + 1 :]]))
            for e in (1e-2, -1e-2)
        ]
        slope = (moved[0] - moved[1]) / 2e-2
        assert slope == pytest.approx(float(jnp.sum(gradients[i] * way)), rel=2e-2)


def test_offsets_far_outside_are_finite_and_read_nothing():
    x, offsets, weights, kernel = case()

    def total(offsets):
        return jnp.sum(deform.conv(x, offsets, weights, kernel))

    far = np.full_like(offsets, 3e9)
    assert total(far) == 0
    assert jnp.isfinite(jax.grad(total)(far)).all()


def test_vmap_is_a_loop():
    cases = [case(seed) for seed in range(3)]
    stacked = [np.stack(parts) for parts in zip(*cases, strict=True)]
    together = jax.vmap(deform.conv)(*stacked)
    for got, parts in zip(together, cases, strict=True):
        np.testing.assert_allclose(got, deform.conv(*parts), rtol=1e-5, atol=1e-5)
