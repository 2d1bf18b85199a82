"""What every model owes its users, whatever the family: the contract of `Model`."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from families import (
    OF_PIXELS,
    batch,
    close,
    equations,
    everything,
    forget,
    key,
    loss_and_gradient,
    model,
    parameters,
    predict,
    run,
    task_of,
    variables,
    with_inputs,
    with_view,
)
from flax import traverse_util

from detjax import models, sharding
from detjax.types import Model

# Scoped, so that all tests of a model come one after the other.
pytestmark = pytest.mark.parametrize("name", parameters(), scope="module")


@pytest.fixture(autouse=True, scope="module")
def _forget_the_model_before(name):
    """Lets go of what was compiled of a model when its last test is done."""
    yield
    forget()
    jax.clear_caches()


def traced(function, *args):
    """The program that `function` is for `args`, which it must leave as they are."""

    def watched(*args):
        leaves, structure = jax.tree.flatten(args)
        result = function(*args)
        after, structure_after = jax.tree.flatten(args)
        assert structure_after == structure
        assert all(a is b for a, b in zip(after, leaves, strict=True))
        return result

    closed = jax.make_jaxpr(watched)(*args)
    return re.sub(r" at 0x[0-9a-f]+", "", str(closed)), closed.consts


def test_what_is_computed_in_half_is_returned_in_float32(name):
    """Losses, state and what is measured, and the answers but for whole numbers."""
    half = models.make(**{**everything()[name], "dtype": "bfloat16"})
    data, params = batch(name=name), variables(name)
    loss, (state, metrics) = jax.eval_shape(half.loss, *params, data, key())
    found = jax.eval_shape(half.predict, *params, data.inputs)
    kinds = {x.dtype for x in jax.tree.leaves((loss, state, metrics))}
    assert kinds - {jnp.int32.dtype} == {jnp.float32.dtype}
    kinds = {x.dtype for x in jax.tree.leaves(found)}
    assert jnp.bfloat16.dtype not in kinds
    assert jnp.float32.dtype in kinds


def test_is_three_pure_functions(name):
    """The same inputs are the same program, whatever went before; inputs are kept."""
    made = models.make(**everything()[name])
    assert isinstance(made, Model)
    (params, state), data = variables(name), batch(name=name)
    other = batch(objects=1, seed=1, name=name)
    for function, first, second in (
        (made.init, (key(), data.inputs.images), (key(), other.inputs.images)),
        (made.loss, (params, state, data, key()), (params, state, other, key())),
        (made.predict, (params, state, data.inputs), (params, state, other.inputs)),
    ):
        program, constants = traced(function, *first)
        # What differs in values alone is the same program too: nothing of a batch is
        # kept, or was read while the program was made.
        for args in (second, first):
            again, values = traced(function, *args)
            assert again == program
            jax.tree.map(np.testing.assert_array_equal, values, constants)


def test_every_parameter_is_in_one_group(name):
    groups = model(name).spec.groups
    names = [".".join(path) for path in traverse_util.flatten_dict(variables(name)[0])]
    found = {
        n: [g for g, pattern in groups.items() if re.search(pattern, n)] for n in names
    }
    assert {n: some for n, some in found.items() if len(some) != 1} == {}
    assert {group for some in found.values() for group in some} == set(groups)


def test_parameters_are_float32(name):
    params, state = variables(name)
    assert {x.dtype for x in jax.tree.leaves((params, state))} == {jnp.float32.dtype}


def work(equation):
    """Multiplications of a convolution."""
    kernel = equation.invars[1].aval.shape
    out = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
    return np.prod(equation.outvars[0].aval.shape) * np.prod(kernel) / out


def test_bfloat16_is_close_to_float32(name):
    """Its loss and gradient; no convolution of either is left in float32.

    But for what joins or enlarges the maps that are answered, next to nothing.
    """
    half = models.make(**{**everything()[name], "dtype": "bfloat16"})
    data, params = batch(name=name), variables(name)
    call = jax.value_and_grad(half.loss, has_aux=True)
    spent = {True: 0.0, False: 0.0}
    for equation in equations(jax.make_jaxpr(call)(*params, data, key()).jaxpr):
        if equation.primitive.name == "conv_general_dilated":
            kinds = {operand.aval.dtype for operand in equation.invars}
            spent[kinds == {jnp.bfloat16.dtype}] += work(equation)
    assert spent[True] > 0
    assert spent[False] <= (0.02 if task_of(name) in OF_PIXELS else 0) * spent[True]
    (loss, _), gradients = jax.jit(call)(*params, data, key())
    (expected, _), exact = run(name, data)
    assert float(loss) == pytest.approx(float(expected), rel=5e-3)
    a, b = (
        np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])
        for tree in (gradients, exact)
    )
    assert np.linalg.norm(a - b) < 0.2 * np.linalg.norm(b)


# What originals have and never read, for the sake of their files.
UNREAD = {"gscnn": ["['dsn1']['bias']", "['dsn1']['kernel']"]}


def test_every_parameter_learns(name):
    """By its gradient, or at the end of a run where the model has one of its own."""
    _, gradients = run(name, batch(name=name))
    moved = jax.tree.map(lambda g: bool(jnp.any(g != 0)), gradients)
    if model(name).solve is not None:
        params, state = variables(name)
        fitted = model(name).solve(
            params, state, [batch(name=name), batch(seed=1, name=name)]
        )
        moved = jax.tree.map(
            lambda old, new, by_gradient: by_gradient or bool(jnp.any(old != new)),
            params,
            fitted,
            moved,
        )
    still = [
        jax.tree_util.keystr(path)
        for path, has_moved in jax.tree_util.tree_leaves_with_path(moved)
        if not has_moved
    ]
    assert still == UNREAD.get(name, [])


def test_images_that_fill_up_a_batch_count_for_nothing(name):
    whole, data = batch(name=name), batch(seed=3, name=name)
    params, state = variables(name)
    after = loss_and_gradient(name)(params, state, whole, key())[0][1][0]
    if any(jax.tree.leaves(jax.tree.map(lambda a, b: (a != b).any(), state, after))):
        pytest.skip("batch statistics see every image of a batch, as they must")
    data = jax.tree.map(lambda a, b: np.concatenate([a, b]), whole, data)
    data = with_view(data, valid=np.array([True, True, False, False]))
    images = whole.inputs.images
    other = with_inputs(data, images=np.concatenate([images, images[::-1]]))
    close(run(name, data)[0][0], run(name, other)[0][0], rtol=1e-6)


@pytest.mark.parametrize(
    "options",
    [{}, pytest.param({"params": "fsdp", "space": 2}, marks=pytest.mark.slow)],
    ids=["data", "fsdp and rows"],
)
def test_eight_devices_give_the_loss_of_one(name, options):
    data, layout = batch(count=8, name=name), sharding.make(**options)
    assert layout.mesh.size == 8

    @jax.jit
    def both(params, state, data):
        def loss(params):
            with layout.traced():
                whole = layout.gather(params)
                return model(name).loss(whole, state, data, key())[0]

        return jax.value_and_grad(loss)(params)

    (loss, _), gradients = run(name, data)
    split, split_gradients = both(*layout.keep(variables(name)), layout.put(data))
    assert split == pytest.approx(float(loss), rel=1e-5)
    scale = optax.tree.norm(gradients)
    apart = jax.tree.map(lambda a, b: a - jax.device_get(b), gradients, split_gradients)
    assert optax.tree.norm(apart) < 1e-4 * scale


def test_predictions_do_not_depend_on_the_rest_of_the_batch(name):
    params, state = variables(name)
    inputs = batch(name=name).inputs
    both = predict(name)(params, state, inputs)
    twin = jax.tree.map(lambda x: np.stack([x[0], x[0]]), inputs)
    alone = predict(name)(params, state, twin)
    close(
        jax.tree.map(lambda x: x[0], both),
        jax.tree.map(lambda x: x[1], alone),
        rtol=1e-4,
        atol=1e-4,
    )


def test_a_few_steps_lower_the_loss_and_compile_once(name):
    """What a step returns is of the very types that it takes."""
    params, state = variables(name)
    data, optimizer, traces = batch(name=name), optax.adam(1e-2), []

    @jax.jit
    def step(params, state, memory):
        traces.append(1)
        (loss, (state, _)), g = jax.value_and_grad(model(name).loss, has_aux=True)(
            params, state, data, key()
        )
        updates, memory = optimizer.update(g, memory)
        return optax.apply_updates(params, updates), state, memory, loss

    memory, seen = optimizer.init(params), []
    for _ in range(25):
        params, state, memory, loss = step(params, state, memory)
        seen.append(float(loss))
    assert seen[-1] < 0.6 * seen[0]
    assert len(traces) == 1
