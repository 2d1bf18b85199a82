"""Layers of dilated networks: strides, pooling at several rates, the simple head."""

import jax
import numpy as np
import pytest

from detjax import backbones
from detjax.errors import UserError
from detjax.nn.aspp import ASPP
from detjax.nn.dense_head import FCNHead
from detjax.nn.strides import firsts, lasts


def made(module, x):
    variables = module.init(jax.random.key(0), x, False)
    return module.apply(variables, x, False), variables["params"]


@pytest.mark.parametrize("separable", [False, True])
def test_the_pooling_has_a_branch_for_each_rate_and_the_mean(separable):
    x = np.random.default_rng(0).normal(size=(2, 9, 7, 6)).astype(np.float32)
    y, params = made(ASPP(4, (2, 3), separable), x)
    assert y.shape == (2, 9, 7, 4)
    assert params["project.0"]["kernel"].shape == (1, 1, 4 * 4, 4)
    assert params["convs.3.1"]["kernel"].shape == (1, 1, 6, 4)
    first = "convs.1.0.0" if separable else "convs.1.0"
    assert params[first]["kernel"].shape == (3, 3, *((1, 6) if separable else (6, 4)))


def test_far_cells_are_seen_at_the_rate_and_through_the_mean():
    x = np.zeros((1, 21, 21, 3), np.float32)
    moved = x.copy()
    moved[0, 10, 10] = 5
    module = ASPP(4, (5,), norm="frozen")
    variables = module.init(jax.random.key(1), x, False)
    apart = module.apply(variables, moved, False) - module.apply(variables, x, False)
    changed = np.abs(np.asarray(apart)[0]).max(axis=-1)
    # Everywhere by the mean alone, more at the centre and the eight places 5 apart.
    base = np.median(changed)
    far = {(y, x) for y, x in np.argwhere(np.abs(changed - base) > 1e-5).tolist()}
    assert far <= {(y, x) for y in (5, 10, 15) for x in (5, 10, 15)}
    assert (10, 10) in far
    assert len(far) > 4


def test_whole_maps_are_dropped_together():
    x = np.random.default_rng(0).uniform(1, 2, (2, 5, 6, 8)).astype(np.float32)
    head = FCNHead(3, 8, 0.5, whole_maps=True, norm="frozen")
    variables = head.init(jax.random.key(0), x, False)
    logits, kept = head.apply(
        variables,
        x,
        True,
        rngs={"dropout": jax.random.key(3)},
        capture_intermediates=True,
        mutable=["intermediates"],
    )
    assert logits.shape == (2, 5, 6, 3)
    dropped = np.asarray(kept["intermediates"]["Dropout_0"]["__call__"][0])
    before = np.maximum(kept["intermediates"]["1"]["__call__"][0], 0)
    zero = (dropped == 0) | (np.asarray(before) == 0)
    whole = zero.all(axis=(1, 2))
    assert whole.any()
    np.testing.assert_allclose(
        dropped, np.where(whole[:, None, None], 0, 2 * before), rtol=1e-5
    )


def dilations(**settings):
    net = backbones.make("resnet50", **settings)
    return [(stride, first) for stride, (first, _) in net._plan()]


def test_dilation_and_grid_of_a_resnets_last_stages():
    plain = dilations(output_stride=8)
    assert plain[7:9] == [(1, 1), (1, 2)]
    assert plain[13:] == [(1, 2), (1, 4), (1, 4)]
    once = dilations(output_stride=8, dilate_at_once=True)
    assert once[6:9] == [(1, 1), (1, 2), (1, 2)]
    assert once[13:] == [(1, 4)] * 3
    grid = dilations(output_stride=16, dilate_at_once=True, multi_grid=(1, 2, 4))
    assert grid[13:] == [(1, 2), (1, 4), (1, 8)]
    with pytest.raises(UserError, match="3 blocks"):
        dilations(multi_grid=(1, 2))


def test_a_deep_stem_keeps_the_strides():
    images = np.zeros((1, 65, 49, 3), np.float32)
    shapes = {}
    for deep in (False, True):
        net = backbones.make("resnet10", width=8, deep_stem=deep)
        found, variables = jax.eval_shape(
            lambda x, net=net: net.init_with_output(jax.random.key(0), x), images
        )
        shapes[deep] = [x.shape for x in found]
        stem = {k for k in variables["params"] if k.startswith("conv")}
        assert stem == ({"conv1", "conv2", "conv3"} if deep else {"conv1"})
    assert shapes[False] == shapes[True]


def test_first_layers_of_a_stride():
    strides = [2, 1, 2, 1, 2, 1, 1, 2, 1]
    assert firsts(strides, 2) == [2, 4]
    assert lasts(strides, 2) == [3, 6]
