"""FCN on ResNets, DeepLab, LR-ASPP, PSPNet: settings, padding, sizes, names."""

import dense_cases
import families
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from detjax import models
from detjax.errors import UserError

NAMES = ("fcn_resnet", "deeplabv3", "deeplabv3plus", "lraspp", "pspnet")
TINY = {name: families.TINY_PIXELS[name] for name in NAMES}
STRIDES = {"deeplabv3plus": 4, "lraspp": 8}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n != "lraspp")) for n in NAMES]
)
def test_padding_is_inert_and_all_is_finite(name):
    data = dense_cases.batch()
    _, _, answer = dense_cases.check(models.make(**TINY[name]), data)
    stride = STRIDES.get(name, 16)
    h, w = data.inputs.images.shape[1:3]
    assert answer.logits.shape == (2, h // stride, w // stride, 3)
    assert answer.size == (h, w)
    assert answer.corners == (name in ("deeplabv3plus", "pspnet"))


@pytest.mark.parametrize(
    "name", ["deeplabv3", pytest.param("pspnet", marks=pytest.mark.slow)]
)
def test_the_auxiliary_head_is_there_in_training_alone(name):
    data = dense_cases.batch()
    model = models.make(**TINY[name])
    params, state = dense_cases.started(model, data)
    (loss, (_, metrics)), _ = dense_cases.step(model)(params, state, data)
    weight = {"deeplabv3": 0.5, "pspnet": 0.4}[name]
    expected = metrics["pixels"] + weight * metrics["auxiliary"]
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    without = models.make(**{**TINY[name], "auxiliary": None})
    group = model.spec.groups["auxiliary"].strip("^.\\")
    assert group in params
    assert (
        group
        not in jax.eval_shape(without.init, jax.random.key(0), data.inputs.images)[0]
    )
    (alone, (_, metrics)), _ = dense_cases.step(without)(
        {k: v for k, v in params.items() if k != group},
        {k: {n: x for n, x in v.items() if n != group} for k, v in state.items()},
        data,
    )
    assert "auxiliary" not in metrics
    np.testing.assert_allclose(alone, metrics["pixels"])


def test_an_auxiliary_head_needs_a_level_that_is_there():
    model = models.make(**{**TINY["fcn_resnet"], "auxiliary": {"level": 5}})
    assert dense_cases.started(model, dense_cases.batch())
    for wrong in ({"level": 6}, {"level": 1}):
        with pytest.raises(UserError, match="level"):
            models.make(**{**TINY["fcn_resnet"], "auxiliary": wrong})


@pytest.mark.parametrize("size", [(33, 41), (30, 47), (8, 9)])
def test_any_size_goes_through_the_pyramid(size):
    model = models.make(**TINY["pspnet"])
    images = np.zeros((1, *size, 3), np.uint8)
    params, state = jax.eval_shape(model.init, jax.random.key(0), images)
    answer = jax.eval_shape(
        model.predict, params, state, dense_cases.batch(size=size).inputs
    )
    assert answer.logits.shape[1:3] == tuple(-(-side // 16) for side in size)


@pytest.mark.parametrize(("stride", "rates"), [(16, (6, 12, 18)), (8, (12, 24, 36))])
def test_rates_follow_the_output_stride(stride, rates):
    def net(**aspp):
        backbone = {**TINY["deeplabv3"]["backbone"], "output_stride": stride}
        settings = {**TINY["deeplabv3"], "backbone": backbone, "auxiliary": None}
        settings["aspp"] = {**settings["aspp"], **aspp}
        return models.make(**settings)

    data = dense_cases.batch(size=(64, 64))
    params, state = dense_cases.started(net(), data)
    answers = [
        jax.jit(model.predict)(params, state, data.inputs).logits
        for model in (net(), net(rates=rates), net(rates=(1, 2, 3)))
    ]
    np.testing.assert_array_equal(answers[0], answers[1])
    assert not np.allclose(answers[0], answers[2])


def test_a_family_without_a_setting_says_so():
    wrong = {**TINY["fcn_resnet"], "backbone": {"name": "vgg11", "deep_stem": True}}
    with pytest.raises(UserError, match="deep_stem"):
        models.make(**wrong)
    mobile = {"name": "mobilenet_v3_small", "multi_grid": (1, 2, 4)}
    with pytest.raises(UserError, match="multi_grid"):
        models.make(**{**TINY["lraspp"], "backbone": mobile})


@pytest.mark.slow
def test_colours_are_learnt():
    name = "deeplabv3plus"
    data = dense_cases.batch()
    settings = {**TINY[name], "norm": "group"}
    settings["backbone"] = {**settings["backbone"], "norm": "group"}
    model = models.make(**settings)
    params, state = dense_cases.started(model, data)
    optimizer = optax.adam(1e-2)
    held = optimizer.init(params)
    step = dense_cases.step(model)
    first = None
    for _ in range(60):
        (loss, (_, metrics)), gradients = step(params, state, data)
        first = loss if first is None else first
        updates, held = optimizer.update(gradients, held)
        params = optax.apply_updates(params, updates)
    assert loss < 0.6 * first
    assert metrics["correct"] > 0.7


def test_bfloat16_has_float32_logits():
    data = dense_cases.batch()
    model = models.make(**TINY["deeplabv3plus"], dtype="bfloat16")
    params, state = jax.eval_shape(model.init, jax.random.key(0), data.inputs.images)
    answer = jax.eval_shape(model.predict, params, state, data.inputs)
    assert answer.logits.dtype == jnp.float32
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(params))


@pytest.mark.parametrize("name", ["deeplabv3_mobilenet_v3_large", "pspnet50"])
def test_published_models_have_their_parameters(name):
    model = models.make(name, num_classes=21)
    images = np.zeros((1, 65, 65, 3), np.uint8)
    params, _ = jax.eval_shape(model.init, jax.random.key(0), images)
    count = sum(x.size for x in jax.tree.leaves(params))
    expected = {"deeplabv3_mobilenet_v3_large": 11_029_328, "pspnet50": 49_081_578}
    assert count == expected[name]
