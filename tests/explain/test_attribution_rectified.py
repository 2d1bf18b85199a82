"""Guided backpropagation and the deconvnet: whose derivatives are replaced, and how."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from explain_cases import drawn, logits, predict, rectified

from detjax import models
from detjax.errors import UserError
from detjax.explain import attribution, layers
from detjax.explain import rectified as rules
from detjax.types import Inputs


def slope(call, rule, x, arriving):
    value, back = jax.vjp(rule(call), jnp.asarray(x))
    np.testing.assert_allclose(value, call(jnp.asarray(x)), rtol=1e-6)
    return back(jnp.asarray(arriving))[0]


X, ARRIVING = [-1.0, -1.0, 2.0, 2.0, 7.0], [-3.0, 3.0, -3.0, 3.0, 5.0]


@pytest.mark.parametrize(
    ("call", "guided", "deconvnet"),
    [
        (jax.nn.relu, [0, 0, 0, 3, 5], [0, 3, 0, 3, 5]),
        (jax.nn.relu6, [0, 0, 0, 3, 0], [0, 3, 0, 3, 5]),
        (lambda x: jax.nn.leaky_relu(x, 0.5), [0, 1.5, 0, 3, 5], [0, 3, 0, 3, 5]),
    ],
    ids=["relu", "relu6", "leaky"],
)
def test_one_rectifier_by_hand(call, guided, deconvnet):
    np.testing.assert_allclose(slope(call, rules.guided, X, ARRIVING), guided)
    np.testing.assert_allclose(slope(call, rules.deconvnet, X, ARRIVING), deconvnet)


def scanned(x):
    return jax.lax.scan(lambda c, k: (jax.nn.relu(c) * k, None), x, jnp.ones(2))[0]


def branched(x):
    return jax.lax.cond(x.sum() > 0, jax.nn.relu, lambda x: 2 * x, x)


@jax.custom_jvp
def own(x):
    return jax.nn.relu(x)


own.defjvp(lambda x, t: (own(*x), 7 * t[0]))


@pytest.mark.parametrize(
    "call",
    [
        jax.jit(lambda x: jax.nn.relu(x)),
        jax.checkpoint(lambda x: jax.nn.relu(x)),
        jax.jit(jax.checkpoint(lambda x: jnp.sin(x) * 0 + jax.nn.relu(x))),
        scanned,
        branched,
        own,
    ],
    ids=["jit", "checkpoint", "both", "scan", "cond", "custom"],
)
def test_rectifiers_are_found_wherever_they_stand(call):
    assert rules.rectifiers(call, jnp.ones(3)) == 1
    np.testing.assert_allclose(
        slope(call, rules.guided, X, ARRIVING), [0, 0, 0, 3, 5], atol=1e-6
    )


@pytest.mark.parametrize("gate", [jax.nn.silu, jax.nn.hard_swish, jax.nn.sigmoid])
def test_gates_keep_their_derivatives(gate):
    assert rules.rectifiers(gate, jnp.ones(3)) == 0
    with pytest.raises(UserError, match="has no rectifier"):
        rules.guided(gate)(jnp.ones(3))

    def both(x):
        return gate(x) + jax.nn.relu(x)

    found = slope(both, rules.guided, X, ARRIVING)
    expected = slope(gate, lambda call: call, X, ARRIVING)
    relu = np.where(np.asarray(X) > 0, np.maximum(ARRIVING, 0), 0)
    np.testing.assert_allclose(found, expected + relu, rtol=1e-5)


def test_a_network_of_two_layers_by_hand():
    params, _, inputs = given = drawn()
    images = np.asarray(inputs.images)
    found = {
        rule: attribution.gradient(rectified, logits, through=rule)(*given)
        for rule in (rules.guided, rules.deconvnet)
    }
    arriving = params["two"]["kernel"].T[:, None, None, None] / 30
    passed = np.maximum(arriving, 0)
    back = params["one"]["kernel"].T
    on = images @ params["one"]["kernel"] > 0
    np.testing.assert_allclose(
        found[rules.guided], (passed * on) @ back, rtol=1e-4, atol=1e-6
    )
    expected = np.broadcast_to(passed @ back, found[rules.guided].shape)
    np.testing.assert_allclose(found[rules.deconvnet], expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(UserError, match="choose another method"):
        attribution.gradient(predict, logits, through=rules.guided)(*given)


@pytest.mark.parametrize(
    ("name", "number"),
    # A stem and two a block; 13 convolutions and 2 of the classifier; as the first with
    # its blocks computed again.
    [("resnet10", 9), ("vgg16", 15), ("resnet10 again", 9)],
)
def test_all_of_a_networks_rectifiers_are_replaced(name, number):
    name, *again = name.split()
    model = models.make(
        name="classifier",
        num_classes=3,
        backbone={"name": name, "width": 8, "remat": bool(again)},
    )
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.uint8)
    params, state = jax.eval_shape(model.init, jax.random.key(0), images)
    assert rules.rectifiers(model.predict, params, state, Inputs(images)) == number


def test_names_of_layers_are_seen_through_the_change():
    given = drawn()
    known = layers.slopes(rectified, ["hidden", "one"], logits, through=rules.guided)
    found = known(*given)
    positive = np.maximum(np.asarray(found.gradients["hidden"]), 0)
    on = np.asarray(found.values["one"]) > 0
    np.testing.assert_allclose(found.gradients["one"], positive * on, rtol=1e-6)
