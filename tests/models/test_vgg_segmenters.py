"""FCN, SegNet, DeconvNet, U-Net and HED: what holds of all, and where their cells lie.

Their originals' numbers are in test_parity_vgg.py.
"""

import dense_cases as cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import TINY_PIXELS as TINY
from flax import traverse_util

from detjax import models
from detjax.errors import UserError
from detjax.models.unet import margins

WITHOUT_STATISTICS = (
    "fcn_vgg",
    "segnet",
    "segnet_basic",
    "deconvnet",
    "unet",
    "dense_classifier",
)


def made(name, **changes):
    return models.make(**{**TINY[name], **changes})


@pytest.mark.parametrize("name", WITHOUT_STATISTICS)
def test_they_hold_what_every_model_of_pixels_does(name):
    data = cases.batch(size=(45, 67))
    model = made(name)
    _, _, answer = cases.check(model, data, rtol=1e-3)
    assert answer.size == (45, 67)
    assert answer.logits.shape == (2, 45, 67, 3)
    assert answer.logits.dtype == jnp.float32


def mirrored(model, size, **kinds):
    """Logits of a picture, and those of its mirror image mirrored back.

    With kernels that are their own mirror images, whatever else they are.
    """
    images = np.random.default_rng(0).integers(0, 255, (1, *size, 3)).astype(np.uint8)
    params, state = jax.jit(model.init)(jax.random.key(0), images)
    keys = iter(jax.random.split(jax.random.key(1), 1000))

    def symmetric(path, kernel):
        if kernel.ndim != 4:
            return kernel
        drawn = kernel
        if not any("upscore" in str(name) for name in path):
            scale = (2 / np.prod(kernel.shape[:3])) ** 0.5
            drawn = scale * jax.random.normal(next(keys), kernel.shape)
        return (drawn + drawn[:, ::-1]) / 2

    params = jax.tree_util.tree_map_with_path(symmetric, params)
    run = jax.jit(lambda x: model.net.apply({"params": params, **state}, x)[0])
    straight, back = run(images), run(images[:, :, ::-1])[:, :, ::-1]
    scale = float(jnp.std(straight))
    assert scale > 1e-3
    np.testing.assert_allclose(straight, back, atol=1e-4 * scale)


@pytest.mark.parametrize("stride", [32, 16, 8])
@pytest.mark.parametrize(
    ("kinds", "size"),
    [
        ({}, (32, 64)),
        ({"fc6_side": 1, "fc6_padding": 0}, (64, 32)),
        # As the original, whose 100 pixels are 99 about a convolution of its size.
        ({"padding": 100, "fc6_side": 7, "fc6_padding": 0}, (58, 58)),
    ],
    ids=["padded fc6", "small fc6", "original"],
)
def test_fcns_scores_lie_where_they_are_of(stride, kinds, size):
    mirrored(made("fcn_vgg", stride=stride, **kinds), size)


@pytest.mark.parametrize(
    ("name", "kinds", "size"),
    [
        ("unet", {}, (16, 12)),
        ("unet", {"padded": False}, (20, 20)),
        ("unet", {"padded": False, "up": "bilinear", "norm": None}, (4, 12)),
        ("hed", {}, (16, 32)),
    ],
)
def test_the_others_logits_do_so_too(name, kinds, size):
    """Not those of nets that unpool: of equal values the first place wins."""
    mirrored(made(name, **kinds), size)


@pytest.mark.parametrize("stride", [16, 8])
def test_skips_begin_as_nothing(stride):
    """With the same fc6 and fc7 a finer FCN begins with about what 32s answers.

    Bilinear interpolation in two steps is not that in one.
    """
    images = cases.batch(size=(64, 64)).inputs.images
    coarse, fine = made("fcn_vgg", stride=32), made("fcn_vgg", stride=stride)
    whole, _ = coarse.init(jax.random.key(0), images)
    skips, _ = fine.init(jax.random.key(0), images)
    joined = {**skips, **{k: v for k, v in whole.items() if k in skips}}
    a = coarse.net.apply({"params": whole}, images)[0]
    b = fine.net.apply({"params": joined}, images)[0]
    assert float(jnp.corrcoef(a.ravel(), b.ravel())[0, 1]) > 0.95


def test_at_once_scales_the_finer_maps():
    images = cases.batch(size=(32, 32)).inputs.images
    plain, at_once = made("fcn_vgg"), made("fcn_vgg", at_once=True)
    params, _ = at_once.init(jax.random.key(0), images)
    assert (params["score_pool4"]["kernel"] != 0).any()
    scaled = jax.tree.map(lambda x: x, params)
    for name, by in (("score_pool4", 0.01), ("score_pool3", 1e-4)):
        kernel = params[name]["kernel"] * by
        scaled[name] = {**params[name], "kernel": kernel}
    a = at_once.net.apply({"params": params}, images)[0]
    b = plain.net.apply({"params": scaled}, images)[0]
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_dropout_is_of_training_alone():
    data = cases.batch(size=(32, 32))
    model = made("fcn_vgg", dropout=0.5)
    params, state = cases.started(model, data)
    first, second = (
        model.loss(params, state, data, jax.random.key(i))[0] for i in (0, 1)
    )
    assert first != second
    a, b = (model.predict(params, state, data.inputs).logits for _ in range(2))
    np.testing.assert_array_equal(a, b)


def test_what_does_not_reach_is_told():
    images = np.zeros((1, 64, 64, 3), np.uint8)
    key = jax.random.key(0)
    with pytest.raises(UserError, match="do not reach the borders"):
        short = made("fcn_vgg", padding=40, fc6_side=7, fc6_padding=0)
        jax.eval_shape(short.init, key, np.zeros((1, 256, 256, 3), np.uint8))
    with pytest.raises(UserError, match="fc6 takes 7 x 7"):
        small = made("fcn_vgg", fc6_side=7, fc6_padding=0)
        jax.eval_shape(small.init, key, images)
    with pytest.raises(UserError, match="must be odd"):
        made("fcn_vgg", fc6_side=4)
    with pytest.raises(UserError, match="fc6 takes 7 x 7"):
        jax.eval_shape(made("deconvnet", fc6_side=7).init, key, images)
    with pytest.raises(UserError, match="at least 16"):
        jax.eval_shape(made("hed").init, key, images[:, :8])


@pytest.mark.parametrize("name", ["fcn32s", "fcn16s", "fcn8s", "fcn8s_at_once"])
def test_the_originals_take_any_size(name):
    model = models.make(name, num_classes=21)
    assert set(model.spec.groups) == {"backbone", "fc", "score", "upscore"}
    for size in ((1, 1), (37, 500), (224, 224)):
        images = np.zeros((1, *size, 3), np.uint8)
        (out,), _ = jax.eval_shape(
            model.net.init_with_output, jax.random.key(0), images
        )
        assert out.shape == (1, *size, 21)


def test_deconvnet_has_the_papers_sides():
    """224 pixels leave one cell of fc6; 252 million parameters, section 3.2."""
    model = models.make("deconvnet", num_classes=21)
    images = np.zeros((1, 224, 224, 3), np.uint8)
    params, _ = jax.eval_shape(model.init, jax.random.key(0), images)
    assert params["fc6"]["kernel"].shape == (7, 7, 512, 4096)
    count = sum(x.size for x in jax.tree.leaves(params))
    assert round(count / 1e6) == 252


def test_unet_has_the_papers_count():
    """31,030,658 with one channel of input; three have 64 * 9 * 2 more."""
    model = models.make("unet", num_classes=2, norm=None, padded=False)
    images = np.zeros((1, 388, 388, 3), np.uint8)
    (out,), variables = jax.eval_shape(
        model.net.init_with_output, jax.random.key(0), images
    )
    count = sum(x.size for x in jax.tree.leaves(variables["params"]))
    assert count == 31_030_658 + 2 * 9 * 64
    assert out.shape == (1, 388, 388, 2)
    # The figure of the paper: 572 pixels in, 388 out.
    assert margins(388, 4) == (92, 92)


@pytest.mark.parametrize("side", [1, 3, 4, 5, 18])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_unet_without_padding_answers_for_all(side, depth):
    before, behind = margins(side, depth)
    left = before + side + behind
    for _ in range(depth):
        left -= 4
        assert left % 2 == 0
        left //= 2
    for _ in range(depth):
        left = 2 * (left - 4)
    left -= 4
    assert before + left >= side + before
    assert left < side + 2**depth * 2
    assert min(before, behind) >= 0


def test_batch_norm_learns_statistics():
    data = cases.batch(size=(32, 32))
    basic = made("segnet_basic", norm="batch", depth=1)
    for model in (basic, made("unet", norm="batch", depth=1)):
        params, state = cases.started(model, data)
        (_, (after, _)), _ = cases.step(model)(params, state, data)
        moved = jax.tree.map(lambda a, b: bool((a != b).any()), state, after)
        assert all(jax.tree.leaves(moved))
        kept = traverse_util.flatten_dict(after).keys()
        assert kept == traverse_util.flatten_dict(state).keys()


def test_remat_changes_nothing():
    data = cases.batch(size=(32, 32))
    backbone = {**TINY["fcn_vgg"]["backbone"], "remat": True}
    a, b = made("fcn_vgg"), made("fcn_vgg", backbone=backbone)
    params, state = cases.started(a, data)
    (loss, _), gradients = cases.step(a)(params, state, data)
    (again, _), same = cases.step(b)(params, state, data)
    assert again == pytest.approx(float(loss), rel=1e-5)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5),
        gradients,
        same,
    )
