"""Upsampling against loops, forward and gradient, and where it is one and the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from detjax.ops import resize, upsample
from tests import reference_upsample as reference

FACTORS = [2, 3]
FILTERS = ["nearest", "linear", "cubic", "bed_of_nails"]


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def check(ours, theirs, x):
    """`ours` is `theirs`; its gradient is that of the linear function `theirs`."""
    expected = theirs(x.astype(np.float64))
    found = ours(x)
    assert found.shape == expected.shape
    assert found.dtype == x.dtype
    np.testing.assert_allclose(found, expected, atol=2e-6)
    by = drawn(*expected.shape, seed=1)
    gradient = jax.grad(lambda x: jnp.vdot(ours(x), by))(x)
    step = drawn(*x.shape, seed=2)
    np.testing.assert_allclose(
        np.vdot(gradient, step), np.vdot(theirs(step.astype(np.float64)), by), rtol=1e-4
    )


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("name", FILTERS)
def test_fixed_filters_are_the_loops(name, factor):
    check(
        lambda x: getattr(upsample, name)(x, factor),
        lambda x: getattr(reference, name)(x, factor),
        drawn(4, 3, 2),
    )


def test_a_cubic_may_have_another_slope():
    check(
        lambda x: upsample.cubic(x, 2, a=-0.75),
        lambda x: reference.cubic(x, 2, a=-0.75),
        drawn(4, 3, 2),
    )


@pytest.mark.parametrize("factor", FACTORS)
def test_nearest_and_linear_are_those_of_resize(factor):
    x, size = drawn(5, 4, 2), (5 * factor, 4 * factor)
    for found, expected in (
        (upsample.nearest(x, factor), resize.nearest(x, size)),
        (upsample.linear(x, factor), resize.bilinear(x, size)),
    ):
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize(
    ("name", "degree"), [("nearest", 0), ("linear", 1), ("cubic", 2)]
)
def test_a_filter_is_exact_up_to_its_degree(name, degree, factor):
    """Keys 1981: with a = -1/2 the cubic's error is of third order."""
    place = np.arange(8, dtype=np.float32)
    fine = (np.arange(8 * factor) + 0.5) / factor - 0.5
    x = np.broadcast_to((place**degree)[:, None, None], (8, 8, 1))
    inner = slice(2 * factor, -2 * factor)
    found = getattr(upsample, name)(x, factor)[inner, inner, 0]
    expected = np.broadcast_to((fine**degree)[inner, None], found.shape)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("window", "stride", "size"),
    [(2, 2, (4, 6)), (2, 2, (5, 7)), (3, 2, (6, 7)), (3, 3, (7, 5)), (1, 3, (5, 7))],
)
def test_max_pooling_and_unpooling_are_the_loops(window, stride, size):
    # Few different values, so that many are equal: the first place wins.
    x = np.random.default_rng(0).integers(-2, 2, (*size, 3)).astype(np.float32)
    found = upsample.max_pool(x, window, stride)
    values, places = reference.max_pool(x, window, stride)
    np.testing.assert_array_equal(found.values, values)
    np.testing.assert_array_equal(found.places, places)
    step = drawn(*values.shape)
    expected = reference.max_unpool(step, places, size)
    apart = stride if window <= stride else None
    for way in {None, apart}:
        whole = upsample.max_unpool(step, found.places, size, way)
        np.testing.assert_allclose(whole, expected, rtol=1e-6)
        # It is the gradient of pooling, and pooling of what is unpooled is its own.
        gradient = jax.grad(
            lambda x: jnp.vdot(upsample.max_pool(x, window, stride).values, step)
        )(x)
        np.testing.assert_allclose(gradient, expected, rtol=1e-6)
        by = drawn(*x.shape, seed=1)
        back = jax.grad(
            lambda v, way=way, by=by: jnp.vdot(
                upsample.max_unpool(v, found.places, size, way), by
            )
        )(step)
        at = by.reshape(-1, 3)[places, np.arange(3)]
        np.testing.assert_allclose(back, at, rtol=1e-6)


TRANSPOSED = [(3, 1, 1), (4, 2, 1), (2, 2, 0), (3, 2, 1), (5, 3, 0), (1, 2, 0)]


@pytest.mark.parametrize(("kernel", "stride", "padding"), TRANSPOSED)
def test_a_transposed_convolution_is_the_loop(kernel, stride, padding):
    weights = drawn(kernel, kernel, 3, 2, seed=3)
    check(
        lambda x: upsample.transposed_convolution(x, weights, stride, padding),
        lambda x: reference.transposed_convolution(x, weights, stride, padding),
        drawn(4, 5, 2),
    )
    x, by = drawn(4, 5, 2), 1
    found = upsample.transposed_convolution(x, weights, stride, padding)
    by = drawn(*found.shape, seed=4)
    gradient = jax.grad(
        lambda k: jnp.vdot(upsample.transposed_convolution(x, k, stride, padding), by)
    )(weights)
    step = drawn(*weights.shape, seed=5)
    moved = reference.transposed_convolution(x, step, stride, padding)
    np.testing.assert_allclose(np.vdot(gradient, step), np.vdot(moved, by), rtol=1e-4)


@pytest.mark.parametrize(("kernel", "stride", "padding"), TRANSPOSED)
def test_it_is_the_gradient_of_convolution(kernel, stride, padding):
    """Of one that makes a map as large as its input, for each such size."""
    weights, x = drawn(kernel, kernel, 3, 2, seed=3), drawn(4, 5, 2)
    for more in range(stride):
        h, w = ((n - 1) * stride - 2 * padding + kernel + more for n in (4, 5))

        def forward(seen):
            return jax.lax.conv_general_dilated(
                seen[None],
                weights,
                (stride, stride),
                [(padding, padding)] * 2,
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )[0]

        made, pull = jax.vjp(forward, jnp.zeros((h, w, 3)))
        assert made.shape == x.shape
        found = upsample.transposed_convolution(x, weights, stride, padding, (h, w))
        np.testing.assert_allclose(found, pull(x)[0], atol=1e-5)
    with pytest.raises(ValueError, match="no \\(3, 3\\)"):
        upsample.transposed_convolution(x, weights, stride, padding, (3, 3))


@pytest.mark.parametrize(("kernel", "stride"), [(4, 2), (3, 2), (6, 3), (2, 2)])
def test_it_is_zero_insertion_and_a_convolution(kernel, stride):
    x, weights = drawn(4, 5, 2), drawn(kernel, kernel, 3, 2)
    nails = np.asarray(upsample.bed_of_nails(x, stride))
    # Without the zeros behind the last cell.
    nails = nails[: nails.shape[0] - stride + 1, : nails.shape[1] - stride + 1]
    turned = weights[::-1, ::-1].transpose(0, 1, 3, 2)
    expected = reference.convolution(nails, turned, 1, kernel - 1)
    found = upsample.transposed_convolution(x, weights, stride)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_fixed_filters_are_transposed_convolutions(factor):
    x = drawn(6, 5, 2)
    eye = np.eye(2, dtype=np.float32)
    box = np.ones((factor, factor, 1, 1), np.float32) * eye
    found = upsample.transposed_convolution(x, box, factor)
    np.testing.assert_allclose(found, upsample.nearest(x, factor), atol=1e-6)
    side = 2 * factor - factor % 2
    triangle = upsample.bilinear_kernel(side)
    taps = upsample.linear_taps(factor)
    np.testing.assert_allclose(triangle, taps[:, None] * taps, atol=1e-6)
    found = upsample.transposed_convolution(
        x, triangle[..., None, None] * eye, factor, (side - factor) // 2
    )
    inner = slice(factor, -factor)
    np.testing.assert_allclose(
        found[inner, inner], upsample.linear(x, factor)[inner, inner], atol=1e-6
    )


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_sub_pixel_is_the_loop_and_a_transposed_convolution(factor):
    x = drawn(3, 4, 2 * factor**2)
    check(
        lambda x: upsample.pixel_shuffle(x, factor),
        lambda x: reference.pixel_shuffle(x, factor),
        x,
    )
    # A convolution of one cell and the shuffle: the kernel's cells are its channels.
    weights = drawn(factor, factor, 2, 5, seed=1)
    seen = drawn(3, 4, 5, seed=2)
    channels = seen @ weights.transpose(3, 2, 0, 1).reshape(5, -1)
    found = upsample.pixel_shuffle(channels, factor)
    expected = upsample.transposed_convolution(seen, weights, factor)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_it_has_torchs_meaning():
    torch = pytest.importorskip("torch")
    x, weights = drawn(4, 5, 2), drawn(4, 4, 3, 2, seed=1)

    def theirs(x):
        return torch.tensor(np.moveaxis(x, -1, 0)[None])

    def ours(found):
        return np.moveaxis(found[0].numpy(), 0, -1)

    expected = torch.nn.functional.conv_transpose2d(
        theirs(x), torch.tensor(weights.transpose(3, 2, 0, 1)), None, 3, 1, (1, 2)
    )
    size = tuple(expected.shape[2:])
    found = upsample.transposed_convolution(x, weights, 3, 1, size)
    np.testing.assert_allclose(found, ours(expected), atol=1e-5)
    pooled, places = torch.nn.functional.max_pool2d(
        theirs(x), 2, 2, ceil_mode=True, return_indices=True
    )
    mine = upsample.max_pool(x, 2, 2)
    np.testing.assert_array_equal(mine.values, ours(pooled))
    np.testing.assert_array_equal(mine.places, ours(places))
    shuffled = torch.nn.functional.pixel_shuffle(theirs(drawn(2, 3, 8)), 2)
    found = upsample.pixel_shuffle(drawn(2, 3, 8), 2)
    np.testing.assert_array_equal(found, ours(shuffled))


def test_bfloat16_stays_so():
    x = jnp.asarray(drawn(4, 4, 4), jnp.bfloat16)
    kernel = jnp.asarray(drawn(4, 4, 3, 4), jnp.bfloat16)
    pooled = upsample.max_pool(x, 2, 2)
    for found in (
        *(getattr(upsample, name)(x, 2) for name in FILTERS),
        pooled.values,
        upsample.max_unpool(pooled.values, pooled.places, (4, 4), 2),
        upsample.transposed_convolution(x, kernel, 2, 1),
        upsample.pixel_shuffle(x, 2),
    ):
        assert found.dtype == jnp.bfloat16
