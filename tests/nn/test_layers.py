"""Normalisation by name, the pyramid, and pixels into activations."""

from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

from detjax.errors import UserError
from detjax.nn.fpn import FPN
from detjax.nn.images import NORMALIZED, STATISTICS, Pixels, normalize, windows
from detjax.nn.norm import MaskedBatchNorm, norm
from detjax.types import Inputs, View


class Layer(linen.Module):
    kind: str

    @linen.compact
    def __call__(self, x, train):
        return norm(self.kind, name="bn1", channels=x.shape[-1], train=train)(x)


def apply(kind, x, train):
    layer = Layer(kind)
    variables = layer.init(jax.random.key(0), x, False)
    return layer.apply(variables, x, train, mutable=["batch_stats"])


def test_batch_norm_uses_the_batch_in_training_only():
    x = 3 + 2 * np.random.default_rng(0).standard_normal((4, 8, 8, 6)).astype("f")
    y, changed = apply("batch", x, train=True)
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.std((0, 1, 2)), 1, atol=1e-3)
    assert changed["batch_stats"]["bn1"]["mean"][0] == pytest.approx(0.3, abs=0.05)
    y, _ = apply("batch", x, train=False)
    np.testing.assert_allclose(y, x, rtol=1e-4)


def test_masked_batch_norm_is_that_of_the_real_rows():
    x = 3 + 2 * np.random.default_rng(0).standard_normal((5, 4, 4, 6)).astype("f")
    real = np.array([True, False, True, True, False])
    plain = linen.BatchNorm(momentum=0.9, use_running_average=False)
    layer = MaskedBatchNorm()
    variables = plain.init(jax.random.key(0), x)
    twin = layer.init(jax.random.key(0), x, real, True)
    assert jax.tree.structure(twin) == jax.tree.structure(variables)
    want, changed = plain.apply(variables, x[real], mutable=["batch_stats"])
    found, ours = layer.apply(twin, x, real, True, mutable=["batch_stats"])
    np.testing.assert_allclose(found[real], want, atol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), ours, changed
    )
    still = np.testing.assert_array_equal
    nothing, kept = layer.apply(
        {**twin, **ours}, x, real & False, True, mutable=["batch_stats"]
    )
    jax.tree.map(still, kept, ours)
    still(nothing, layer.apply({**twin, **ours}, x, real, False))


def test_frozen_norm_never_looks_at_the_batch():
    x = 3 + np.ones((2, 4, 4, 6), np.float32)
    y, changed = apply("frozen", x, train=True)
    np.testing.assert_allclose(y, x, rtol=1e-4)
    np.testing.assert_array_equal(changed["batch_stats"]["bn1"]["mean"], 0)


def test_group_norm_has_no_running_statistics():
    x = np.random.default_rng(0).standard_normal((2, 8, 8, 64)).astype("f")
    y, changed = apply("group", x, train=True)
    groups = y.reshape(2, 64, 32, 2)
    np.testing.assert_allclose(groups.mean((1, 3)), 0, atol=1e-5)
    assert not changed


def test_unknown_norm_is_named():
    with pytest.raises(ValueError, match="'layer' is not known"):
        apply("layer", np.ones((1, 2, 2, 4), np.float32), train=False)


@pytest.mark.parametrize("upsample", ["nearest", "bilinear"])
def test_pyramid_levels_halve(upsample):
    features = [jnp.ones((2, s, s, c)) for s, c in ((17, 4), (9, 8), (5, 16))]
    fpn = FPN(6, extra_levels=2, upsample=upsample)
    levels, variables = fpn.init_with_output(jax.random.key(0), features)
    assert [x.shape[1] for x in levels] == [17, 9, 5, 3, 2]
    assert {x.shape[-1] for x in levels} == {6}
    assert "inner_blocks.2.0" in variables["params"]
    assert "extra_blocks.p7" in variables["params"]


def test_normalize_takes_bytes_and_floats_only_where_they_are_normalized():
    image = np.full((1, 2, 2, 3), 128, np.uint8)
    mean, std = STATISTICS["imagenet"]
    expected = (128 - np.float32(mean)) / np.float32(std)
    np.testing.assert_allclose(normalize(image)[0, 0, 0], expected, rtol=1e-6)
    floats = np.full((1, 2, 2, 3), 0.5, np.float32)
    np.testing.assert_array_equal(normalize(floats, NORMALIZED), floats)
    with pytest.raises(UserError, match=r"float32 .* pixels='imagenet'; give uint8"):
        normalize(floats)
    with pytest.raises(UserError, match=r"uint8 .* pixels='normalized'"):
        normalize(image, NORMALIZED)
    assert normalize(image, dtype=jnp.bfloat16).dtype == jnp.bfloat16


def test_every_kind_of_pixels_can_be_set():
    assert set(get_args(Pixels)) == {*STATISTICS, NORMALIZED}


def test_windows_are_where_pictures_lie_in_their_inputs():
    images = np.zeros((2, 30, 40, 3), np.uint8)
    whole = windows(Inputs(images))
    assert whole.tolist() == [[0, 0, 40, 30]] * 2
    moved = np.float32([[[2, 0, 5], [0, 2, 0]], [[1, 0, 0], [0, 1, 0]]])
    view = View(moved, np.int32([[15, 10], [30, 40]]), np.ones(2, bool))
    found = windows(Inputs(images, view))
    np.testing.assert_allclose(found, [[5, 0, 25, 30], [0, 0, 40, 30]])
    assert found.dtype == whole.dtype == np.float32
