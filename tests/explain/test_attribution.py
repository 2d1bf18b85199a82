"""Attributions against slow loops, closed forms and properties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from explain_cases import drawn, first, logits, predict, rectified

from detjax.errors import UserError
from detjax.explain import attribution, layers, occlusion, paths
from detjax.explain.layers import IMAGES
from detjax.types import Inputs


def with_images(given, images):
    return (*given[:2], Inputs(jnp.asarray(images)))


def test_nested_watches_all_see_the_images():
    given = drawn()
    doubled = layers.changed(predict, {IMAGES: lambda x: 2 * x})
    again = layers.changed(doubled, {IMAGES: lambda x: x + 1})
    seen = layers.seen(again, [IMAGES])(*given)[1][IMAGES]
    np.testing.assert_allclose(seen, 2 * given[2].images + 1, rtol=1e-6)


def test_gradient_is_what_small_steps_find():
    given = drawn()
    found = attribution.gradient(predict, logits)(*given)
    assert found.shape == (3, *given[2].images.shape)
    images = np.array(given[2].images)
    for place in ((0, 1, 2, 0), (1, 4, 5, 2)):
        ends = []
        for step in (-1e-2, 1e-2):
            moved = images.copy()
            moved[place] += step
            ends.append(predict(*with_images(given, moved)).logits[place[0]])
        slope = (ends[1] - ends[0]) / 2e-2
        np.testing.assert_allclose(found[:, *place], slope, atol=2e-4)


def test_gradient_times_input_of_a_layer():
    params, *_ = given = drawn()
    found = attribution.times_input(predict, first, "hidden")(*given)
    hidden = (np.asarray(given[2].images) @ params["one"]["kernel"]) ** 2
    np.testing.assert_allclose(
        found[0], hidden * params["two"]["kernel"][:, 0] / 30, rtol=1e-4, atol=1e-6
    )


def test_grad_cam_weighs_maps_by_their_mean_gradients():
    params, *_ = given = drawn()
    found = attribution.grad_cam(predict, logits, "hidden")(*given)
    hidden = (np.asarray(given[2].images) @ params["one"]["kernel"]) ** 2
    expected = np.einsum("bhwk,kq->qbhw", hidden, params["two"]["kernel"]) / 30
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_moments_over_noise_are_those_of_a_loop():
    given = drawn()
    noise = np.random.default_rng(1).standard_normal((5, 2, 5, 6, 3)).astype("f")
    found = attribution.smoothed(predict, logits)(*given, jnp.asarray(noise))
    each = np.stack(
        [
            attribution.gradient(predict, logits)(
                *with_images(given, given[2].images + x)
            )
            for x in noise
        ]
    ).astype(np.float64)
    for ours, expected in zip(
        found,
        (each.mean(0), np.abs(each).mean(0), (each**2).mean(0), each.var(0)),
        strict=True,
    ):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-6)


def test_a_small_variance_beside_a_large_mean_is_kept():
    params, state, inputs = drawn()
    params["two"]["kernel"] *= 1e4
    noise = 1e-3 * np.random.default_rng(1).standard_normal((6, 2, 5, 6, 3))
    noise = noise.astype("f")
    large = attribution.smoothed(predict, first)(params, state, inputs, noise)
    slopes = (2e4 / 30 * 1e-4) * params["two"]["kernel"][:, 0]
    kernel = params["one"]["kernel"]
    # d/dx of (x k)^2 a is 2 a k (x k): linear in the noise.
    expected = (noise.astype(float) @ kernel * slopes @ kernel.T).var(axis=0)
    np.testing.assert_allclose(large.variance[0], expected, rtol=0.05)


def test_noise_is_a_share_of_each_images_range():
    images = np.stack([np.linspace(0, 1, 3000), np.linspace(0, 10, 3000)])
    found = attribution.drawn(
        jax.random.key(0), 8, images.reshape(2, 25, 40, 3).astype("f"), 0.2
    )
    assert found.shape == (8, 2, 25, 40, 3)
    np.testing.assert_allclose(np.std(found, axis=(0, 2, 3, 4)), [0.2, 2.0], rtol=0.02)


@pytest.mark.parametrize(
    ("rule", "points", "weights"),
    [
        ("riemann_left", [0, 0.25, 0.5, 0.75], [0.25] * 4),
        ("riemann_right", [0.25, 0.5, 0.75, 1], [0.25] * 4),
        ("riemann_middle", [0.125, 0.375, 0.625, 0.875], [0.25] * 4),
        ("riemann_trapezoid", [0, 1 / 3, 2 / 3, 1], [0.125, 0.25, 0.25, 0.125]),
    ],
)
def test_riemann_sums(rule, points, weights):
    found = paths.quadrature(rule, 4)
    np.testing.assert_allclose(found.points, points)
    np.testing.assert_allclose(found.weights, weights)


def test_gauss_legendre_is_exact_for_polynomials():
    points, weights = paths.quadrature("gausslegendre", 4)
    for power in range(8):
        assert np.sum(weights * points**power) == pytest.approx(1 / (power + 1))
    assert np.sum(weights * points**8) != pytest.approx(1 / 9, rel=1e-6)


def test_unknown_rules_and_too_few_steps_are_refused():
    with pytest.raises(UserError, match="'simpson' is not known"):
        paths.quadrature("simpson", 4)
    with pytest.raises(UserError, match="give 2 or more"):
        paths.quadrature("riemann_trapezoid", 1)
    with pytest.raises(UserError, match="give 1 or more"):
        paths.quadrature("gausslegendre", 0)


@pytest.mark.parametrize("layer", [IMAGES, "one", "hidden"])
@pytest.mark.parametrize("chunk", [1, 2])
def test_integrated_gradients_are_complete(layer, chunk):
    given = drawn()
    baseline = np.float32(np.random.default_rng(3).standard_normal((5, 6, 3)))
    call = paths.integrated(predict, logits, layer, steps=3, chunk=chunk)
    found = jax.jit(call)(*given, baseline)
    assert found.dtype == jnp.float32
    at_it = with_images(given, np.broadcast_to(baseline, given[2].images.shape))
    expected = predict(*given).logits - predict(*at_it).logits
    total = found.reshape(*found.shape[:2], -1).sum(axis=-1)
    np.testing.assert_allclose(total.T, expected, rtol=1e-4, atol=1e-5)


def test_integrated_gradients_are_a_loop_over_points():
    given = drawn()
    images = np.asarray(given[2].images)
    line = paths.quadrature("riemann_left", 3)
    found = paths.integrated(rectified, first, rule="riemann_left", steps=3)(
        *given, 0.5
    )
    slope = attribution.gradient(rectified, first)
    expected = sum(
        weight * np.asarray(slope(*with_images(given, 0.5 + point * (images - 0.5)))[0])
        for point, weight in zip(*line, strict=True)
    )
    np.testing.assert_allclose(
        found[0], expected * (images - 0.5), rtol=1e-4, atol=1e-6
    )


def slowly_occluded(given, window, stride, baseline):
    """A loop over windows, as captum counts them."""
    images = np.asarray(given[2].images)
    whole = np.asarray(predict(*given).logits)
    b, h, w, c = images.shape
    total = np.zeros((3, b, h, w, c))
    times = np.zeros((h, w, c))
    counts = [
        -(-(n - side) // step) + 1
        for n, side, step in zip((h, w, c), window, stride, strict=True)
    ]
    for place in np.ndindex(*counts):
        at = tuple(
            slice(i * step, i * step + side)
            for i, side, step in zip(place, window, stride, strict=True)
        )
        covered = images.copy()
        covered[(slice(None), *at)] = baseline
        falls = whole - np.asarray(predict(*with_images(given, covered)).logits)
        total[(slice(None), slice(None), *at)] += falls.T[:, :, None, None, None]
        times[at] += 1
    return total / times


@pytest.mark.parametrize(
    ("window", "stride"),
    [((3, 4, 3), (2, 3, 3)), ((2, 2, 1), (2, 1, 1)), ((5, 6, 3), (1, 1, 1))],
)
def test_occlusion_is_a_loop_over_windows(window, stride):
    given = drawn()
    call = occlusion.occlusion(predict, logits, window, stride, 0.25, chunk=3)
    found = jax.jit(call)(*given)
    expected = slowly_occluded(given, window, stride, 0.25)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_windows_without_channels_cover_all_of_them():
    given = drawn()
    short = occlusion.occlusion(predict, logits, (3, 4), (2, 3))(*given)
    full = occlusion.occlusion(predict, logits, (3, 4, 3), (2, 3, 3))(*given)
    np.testing.assert_array_equal(short, full)


def test_strides_that_leave_places_out_are_refused():
    with pytest.raises(UserError, match="leave places out"):
        occlusion.occlusion(predict, logits, (3, 3), (4, 3))
