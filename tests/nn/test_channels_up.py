"""Transposed convolution of each channel by itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from detjax.nn.upsample import ChannelsUp
from detjax.ops import upsample


@pytest.mark.parametrize("factor", [2, 4])
def test_it_is_a_transposed_convolution_of_every_channel(factor):
    rng = np.random.default_rng(factor)
    x = rng.normal(size=(2, 3, 4, 2)).astype("f")
    kernel = rng.normal(size=(2 * factor, 2 * factor, 1, 2)).astype("f")
    found = ChannelsUp(factor).apply({"params": {"kernel": kernel}}, x)
    expected = np.zeros((2, 3 * factor + factor, 4 * factor + factor, 2))
    for row, column in np.ndindex(3, 4):
        place = np.s_[:, row * factor :, column * factor :]
        seen = expected[place][:, : 2 * factor, : 2 * factor]
        seen += x[:, row, column][:, None, None] * kernel[:, :, 0]
    cut = slice(factor // 2, -(factor - factor // 2))
    np.testing.assert_allclose(found, expected[:, cut, cut], rtol=1e-5, atol=1e-5)


def test_it_begins_as_bilinear_interpolation():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 5, 6, 3)), jnp.float32)
    found, _ = ChannelsUp(4).init_with_output(jax.random.key(0), x)
    inner = np.s_[4:-4, 4:-4]
    np.testing.assert_allclose(
        found[0][inner], upsample.linear(x[0], 4)[inner], rtol=1e-5, atol=1e-5
    )
