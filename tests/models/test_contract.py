"""What every model owes its users, whatever the family: the contract of `Model`."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from families import (
    SIDE,
    TINY,
    batch,
    equations,
    forget,
    has_masks,
    key,
    loss_and_gradient,
    model,
    parameters,
    predict,
    variables,
    with_inputs,
    with_target,
    with_view,
)
from flax import traverse_util

from detjax import models, sharding
from detjax.types import Model, Proposals

# Scoped, so that all tests of a model come one after the other.
pytestmark = pytest.mark.parametrize("name", parameters(), scope="module")


@pytest.fixture(autouse=True, scope="module")
def _forget_the_model_before(name):
    """Lets go of what was compiled of a model when its last test is done."""
    yield
    forget()
    jax.clear_caches()


def close(a, b, rtol=1e-5, atol=1e-6):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol, atol), a, b)


def run(name, data, params=None):
    """(loss, metrics), gradients of the tiny model on `data`."""
    initial, state = variables(name)
    (loss, (_, metrics)), gradients = loss_and_gradient(name)(
        initial if params is None else params, state, data, key()
    )
    return (loss, metrics), gradients


def finite(tree):
    return all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(tree))


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


def test_is_three_pure_functions(name):
    """The same inputs are the same program, whatever went before; inputs are kept."""
    made = models.make(**TINY[name])
    assert isinstance(made, Model)
    (params, state), data = variables(name), batch()
    other = batch(objects=1, seed=1)
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


def test_losses_and_boxes_are_float32_whatever_is_computed_in(name):
    half = models.make(**{**TINY[name], "dtype": "bfloat16"})
    data, params = batch(), variables(name)
    loss, (state, metrics) = jax.eval_shape(half.loss, *params, data, key())
    found = jax.eval_shape(half.predict, *params, data.inputs)
    floats = jax.tree.leaves((loss, state, metrics, found.boxes, found.scores))
    assert {x.dtype for x in floats} - {jnp.int32.dtype} == {jnp.float32.dtype}


def test_bfloat16_is_close_to_float32(name):
    """Its loss and gradient; no convolution of either is left in float32."""
    half = models.make(**{**TINY[name], "dtype": "bfloat16"})
    data, params = batch(), variables(name)
    call = jax.value_and_grad(half.loss, has_aux=True)
    kinds = {
        operand.aval.dtype
        for equation in equations(jax.make_jaxpr(call)(*params, data, key()).jaxpr)
        if equation.primitive.name == "conv_general_dilated"
        for operand in equation.invars
    }
    assert kinds == {jnp.bfloat16.dtype}
    (loss, _), gradients = jax.jit(call)(*params, data, key())
    (expected, _), exact = run(name, data)
    assert float(loss) == pytest.approx(float(expected), rel=5e-3)
    a, b = (
        np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])
        for tree in (gradients, exact)
    )
    assert np.linalg.norm(a - b) < 0.2 * np.linalg.norm(b)


def test_loss_is_the_sum_of_its_named_parts(name):
    (loss, metrics), gradients = run(name, batch())
    parts = {k: v for k, v in metrics.items() if k != "positives"}
    assert loss == pytest.approx(float(sum(parts.values())), rel=1e-5)
    assert finite(gradients)
    assert optax.tree.norm(gradients) > 0
    assert metrics["positives"] > 0


def test_every_parameter_learns(name):
    """By its gradient, or at the end of a run where the model has one of its own."""
    _, gradients = run(name, batch())
    moved = jax.tree.map(lambda g: bool(jnp.any(g != 0)), gradients)
    if model(name).solve is not None:
        params, state = variables(name)
        fitted = model(name).solve(params, state, [batch(), batch(seed=1)])
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
    assert not still


def test_padding_is_inert(name):
    data = batch()
    rng = np.random.default_rng(5)
    objects, given = data.target, data.inputs.proposals
    valid = objects.valid
    # Half of the proposals lie beside objects, those of padding included.
    beside = np.concatenate([valid, given.valid[:, valid.shape[1] :]], axis=1)
    data = with_inputs(data, proposals=Proposals(given.boxes, beside))

    def junk(x, real=valid):
        noise = (rng.standard_normal(x.shape) * 1e3).astype(x.dtype)
        if x.dtype == np.int32:
            noise = rng.integers(0, 3, x.shape).astype(x.dtype)
        return np.where(real.reshape(real.shape + (1,) * (x.ndim - 2)), x, noise)

    spoilt = with_target(
        with_inputs(data, proposals=Proposals(junk(given.boxes, beside), beside)),
        boxes=junk(objects.boxes),
        labels=junk(objects.labels),
        masks=junk(objects.masks),
        keypoints=junk(objects.keypoints),
        crowd=np.where(valid, objects.crowd, rng.random(valid.shape) < 0.5),
    )
    close(run(name, data), run(name, spoilt), rtol=0, atol=0)


def test_order_of_objects_is_irrelevant(name):
    # No two have one centre: there some models learn the first, or the last.
    data = batch(seed=1)
    flipped = jax.tree.map(lambda x: x[:, ::-1].copy(), data.target)
    (loss, _), _ = run(name, data)
    (again, _), _ = run(name, data.replace(target=flipped))
    assert again == pytest.approx(float(loss), rel=1e-5)


def boxed(*box, count=6):
    """A batch whose only object is `box`, `count` times over two images."""
    data = batch(objects=count)
    boxes = np.broadcast_to(np.float32(box), data.target.boxes.shape).copy()
    return with_target(data, boxes=boxes)


@pytest.mark.parametrize(
    "data",
    [
        batch(objects=0),
        boxed(0, 0, SIDE, SIDE, count=1),
        boxed(30, 30, 31, 31, count=1),
        boxed(10, 10, 10, 30, count=1),
        batch(objects=6),
    ],
    ids=["no objects", "one covers all", "one pixel", "zero width", "no padding left"],
)
def test_extreme_images_train(name, data):
    (loss, _), gradients = run(name, data)
    assert jnp.isfinite(loss)
    assert finite(gradients)


def test_crowds_are_not_learnt(name):
    data = batch(objects=1)
    crowded = np.zeros_like(data.target.crowd)
    crowded[:, 0] = True
    (_, metrics), gradients = run(name, with_target(data, crowd=crowded))
    assert metrics["positives"] == 0
    assert finite(gradients)


def test_images_that_fill_up_a_batch_count_for_nothing(name):
    if TINY[name].get("backbone", {}).get("norm", "batch") == "batch":
        pytest.skip("batch statistics see every image of a batch, as they must")
    whole, data = batch(count=2), batch(count=2, seed=3)
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
    data, layout = batch(count=8), sharding.make(**options)
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


def test_what_a_batch_lacks_is_named(name):
    data, params = batch(), variables(name)
    bare = with_target(with_inputs(data, proposals=None), masks=None, keypoints=None)
    needed = has_masks(name) or model(name).spec.needs or "keypoint" in TINY[name]
    if not needed:
        assert jax.eval_shape(model(name).loss, *params, bare, key())[0].shape == ()
        return
    with pytest.raises(ValueError, match=r"(batch|given|none).*; "):
        jax.eval_shape(model(name).loss, *params, bare, key())


def test_predictions_have_a_fixed_shape_and_order(name):
    params, state = variables(name)
    found = predict(name)(params, state, batch().inputs)
    assert found.boxes.shape == (2, 10, 4)
    scores = np.where(found.valid, found.scores, -1)
    assert (np.diff(scores, axis=1) <= 0).all()
    assert (found.boxes >= 0).all()
    assert (found.boxes <= SIDE).all()
    assert found.valid.any()
    assert (found.labels < 3).all()
    drawn = found.masks is not None or found.box_masks is not None
    assert drawn == has_masks(name)
    assert finite(found)


def test_predictions_lie_in_the_pictures_window(name):
    params, state = variables(name)
    window = np.float32([[5, 0, 40, 64], [0, 8, 64, 20]])
    moved = np.float32([[[1, 0, 5], [0, 1, 0]], [[1, 0, 0], [0, 1, 8]]])
    sizes = np.int32([[64, 35], [12, 64]])
    data = with_view(batch(), affine=moved, sizes=sizes)
    found = predict(name)(params, state, data.inputs)
    low, high = window[:, None, :2], window[:, None, 2:]
    some = np.asarray(found.valid)[..., None]
    assert some.any()
    assert (~some | (found.boxes[..., :2] >= low)).all()
    assert (~some | (found.boxes[..., 2:] <= high)).all()


def test_predictions_do_not_depend_on_the_rest_of_the_batch(name):
    params, state = variables(name)
    inputs = batch().inputs
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
    data, optimizer, traces = batch(), optax.adam(1e-2), []

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
