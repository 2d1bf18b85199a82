"""Regions of interest against slow oracles, values and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from detjax.data import paste, patches
from detjax.ops import roi, roi_pool
from tests import reference_roi as reference

H, W, C, SCALE = 9, 13, 3, 0.25
SHAPES = [(16, 20), (8, 10), (4, 5), (2, 3)]


def features(h=H, w=W, seed=0):
    # No two values alike, so that every maximum has one place.
    rng = np.random.default_rng(seed)
    return rng.permutation(h * w * C).reshape(h, w, C).astype(np.float32) / 50 - 3


def boxes(n=20, seed=1):
    """Boxes in and around a map of 52 x 36 pixels, some empty, some outside."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(-10, 48, (n, 2))
    made = np.concatenate([low, low + rng.exponential(15, (n, 2))], axis=1)
    made[0] = [0, 0, 4 * W, 4 * H]
    made[1] = [8, 8, 8, 8]
    made[2] = [-40, -40, -20, -20]
    made[3] = [50, 34, 300, 300]
    made[4] = [6, 6, 2, 2]
    return made.astype(np.float32)


@pytest.mark.parametrize("method", ["gather", "einsum"])
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("sampling", [1, 2, 3])
def test_align_is_the_mean_of_its_samples(method, aligned, sampling):
    call = functools.partial(
        roi.align, bins=5, scale=SCALE, sampling=sampling, aligned=aligned
    )
    got = jax.jit(functools.partial(call, method=method))(features(), boxes())
    expected, _, _ = reference.align(features(), boxes(), 5, SCALE, sampling, aligned)
    np.testing.assert_allclose(got, expected, atol=1e-4)


@pytest.mark.parametrize("method", ["gather", "einsum"])
def test_gradient_of_align_puts_back_what_was_read(method):
    out = np.random.default_rng(3).standard_normal((20, 4, 4, C))

    def read(x):
        return jnp.sum(roi.align(x, boxes(), bins=4, scale=SCALE, method=method) * out)

    got = jax.jit(jax.grad(read))(features())
    _, rows, columns = reference.align(features(), boxes(), 4, SCALE, 2, False)
    expected = np.einsum("nsh,nstc,ntw->hwc", rows, out, columns)
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_boxes_get_no_gradient_and_no_boxes_are_fine():
    def read(b):
        return jnp.sum(roi.align(features(), b, bins=3, scale=SCALE))

    assert not jax.grad(read)(boxes()).any()
    assert roi.align(features(), boxes()[:0], bins=3, scale=SCALE).shape == (0, 3, 3, C)


def test_each_box_reads_its_level():
    maps = [features(h, w, seed=i) for i, (h, w) in enumerate(SHAPES)]
    scales = [1 / 4, 1 / 8, 1 / 16, (1 / 33, 1 / 28)]
    level = np.random.default_rng(0).integers(0, 4, 20).astype(np.int32)
    made = boxes() * 1.3
    got = jax.jit(
        lambda maps: roi.multilevel(maps, made, level, bins=3, scales=scales)
    )(maps)
    for i, k in enumerate(level):
        alone = roi.align(maps[k], made[i : i + 1], bins=3, scale=scales[k])
        np.testing.assert_allclose(got[i], alone[0], atol=1e-5)


def test_levels_follow_the_boxes_side():
    rng = np.random.default_rng(0)
    made = np.concatenate([np.zeros((40, 2)), rng.uniform(0, 1500, (40, 2))], axis=1)
    made[0, 2:] = 224
    made[1, 2:] = 223.9
    made[2, 2:] = 0
    got = roi.levels(made.astype(np.float32), 4)
    assert got.tolist() == [reference.level(b, 4, 2, 224, 4) for b in made]
    assert got[:3].tolist() == [2, 1, 0]


def test_pool_is_the_maximum_of_each_bin():
    made = boxes(40)
    got = jax.jit(lambda x: roi_pool.pool(x, made, bins=4, scale=SCALE))(features())
    expected, _ = reference.pool(features(), made, 4, SCALE)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_gradient_of_pool_goes_to_the_maxima():
    made = boxes(40)
    out = np.random.default_rng(3).standard_normal((40, 4, 4, C)).astype("f")
    got = jax.jit(
        jax.grad(lambda x: jnp.sum(roi_pool.pool(x, made, bins=4, scale=SCALE) * out))
    )(features())
    _, where = reference.pool(features(), made, 4, SCALE)
    expected = np.zeros((H, W, C))
    for at in np.ndindex(*out.shape):
        y, x = where[at]
        if y >= 0:
            expected[y, x, at[-1]] += out[at]
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_memory_of_pool_is_not_that_of_all_windows():
    """Of 256 channels, with the gradient; all their windows are 30 maps of them."""
    made, shape = boxes(20), jax.ShapeDtypeStruct((H, W, 256), jnp.float32)

    def total(x):
        return jnp.sum(roi_pool.pool(x, made, bins=4, scale=SCALE) ** 2)

    compiled = jax.jit(jax.grad(total)).lower(shape).compile()
    read = 20 * 4 * 4 * 256 * 4
    held = compiled.memory_analysis().temp_size_in_bytes - 4 * read
    assert held < 16 * H * W * 256 * 4


def test_pool_takes_any_number_of_channels():
    made = boxes(12)
    x = np.random.default_rng(0).standard_normal((H, W, 75)).astype("f")
    got = jax.jit(lambda x: roi_pool.pool(x, made, bins=4, scale=SCALE))(x)
    expected, _ = reference.pool(x, made, 4, SCALE)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize("aligned", [False, True])
def test_masks_are_sampled_as_densely_as_they_are(aligned):
    rng = np.random.default_rng(0)
    masks = (rng.random((20, H, W)) > 0.5).astype(np.uint8)
    scale = (SCALE, SCALE)
    got = jax.jit(
        lambda b: roi.align_masks(masks, b, bins=3, scale=scale, aligned=aligned)
    )(boxes())
    # Half a pixel is half a pixel at any scale.
    shift = 0 if aligned else (SCALE - 1) / 2 / SCALE
    for i in range(20):
        expected, _, _ = reference.align(
            masks[i][..., None], boxes()[i : i + 1] + shift, 3, SCALE, -1, aligned
        )
        np.testing.assert_allclose(got[i], expected[0, ..., 0], atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_aligned_masks_come_back_where_they_were(stride):
    """Ellipses of 12 to 30 pixels, cut out of a coarser grid and drawn again."""
    rng, overlaps = np.random.default_rng(0), []
    for _ in range(20):
        low, sides = rng.uniform(10, 200, 2), rng.uniform(12, 30, 2)
        box = np.concatenate([low, low + sides]).astype(np.float32)
        y, x = (np.mgrid[:256, :256] + 0.5 - low[::-1, None, None]) / sides[
            ::-1, None, None
        ]
        whole = (x - 0.5) ** 2 + (y - 0.5) ** 2 <= 0.25
        cells = whole.reshape(256 // stride, stride, 256 // stride, stride)
        coarse = (cells.mean(axis=(1, 3)) > 0.5).astype(np.uint8)
        scale = (1 / stride, 1 / stride)
        cut = roi.align_masks(
            coarse[None], box[None], bins=28, scale=scale, aligned=True
        )
        identity = np.eye(2, 3, dtype=np.float32)
        args = np.asarray(cut), box[None], identity, (256, 256)
        again = patches.full_mask(next(paste.paste_boxes(*args, aligned=True)))
        overlaps.append((again & whole).sum() / (again | whole).sum())
    assert np.mean(overlaps) > {1: 0.97, 2: 0.89, 4: 0.85}[stride]


@pytest.mark.parametrize("aligned", [False, True])
def test_masks_on_boxes_are_read_as_masks_of_the_whole_input(aligned):
    """Discs, stored at a size or on a grid in their box, are cut out alike."""
    side, r, n = 96, 112, 12
    rng = np.random.default_rng(0)
    radius = rng.uniform(12, 30, n)
    centre = rng.uniform(radius[:, None], side - radius[:, None], (n, 2))
    frames = np.concatenate([centre - radius[:, None], centre + radius[:, None]], 1)
    y, x = np.mgrid[:side, :side] + 0.5
    whole = np.hypot(x - centre[:, :1, None], y - centre[:, 1:, None])
    whole = (whole < radius[:, None, None]).astype(np.uint8)
    v, u = (np.mgrid[:r, :r] + 0.5) * 2 / r - 1
    grids = np.broadcast_to(np.hypot(u, v) < 1, (n, r, r)).astype(np.uint8)
    near = (frames + rng.uniform(-8, 8, frames.shape)).astype(np.float32)
    options = {"bins": 28, "aligned": aligned}
    got = roi.align_box_masks(grids, frames.astype(np.float32), near, **options)
    expected = roi.align_masks(whole, near, scale=(1.0, 1.0), **options)
    assert got.shape == (n, 28, 28)
    # A disc's edge is a pixel's stairs in one of them.
    assert np.abs(np.asarray(got) - expected).mean() < 0.02
    inside = (np.asarray(got) > 0.5) != (np.asarray(expected) > 0.5)
    assert inside.mean() < 0.02
    # Half a pixel that only one of them saw would be seen.
    other = roi.align_box_masks(
        grids, frames.astype(np.float32), near, bins=28, aligned=not aligned
    )
    assert (
        np.abs(np.asarray(other) - expected).mean()
        > 1.3 * np.abs(np.asarray(got) - expected).mean()
    )


def test_a_box_beside_its_mask_reads_nothing():
    mask = np.ones((1, 16, 16), np.uint8)
    frame = np.float32([[10, 10, 26, 26]])
    beside = np.float32([[40, 10, 56, 26]])
    got = roi.align_box_masks(mask, frame, beside, bins=7, aligned=True)
    np.testing.assert_array_equal(got, np.zeros((1, 7, 7)))
    got = roi.align_box_masks(mask, frame, frame, bins=7, aligned=True)
    np.testing.assert_array_equal(np.asarray(got)[0, 1:-1, 1:-1], np.ones((5, 5)))
