"""What every model owes its users, whatever the family: the contract of `Model`."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from families import (
    SIDE,
    TINY,
    batch,
    forget,
    has_masks,
    key,
    loss_and_gradient,
    model,
    parameters,
    predict,
    variables,
)

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


def test_is_three_pure_functions(name):
    made = model(name)
    assert isinstance(made, Model)
    again = models.make(**TINY[name])
    first, second = (
        jax.eval_shape(m.init, key(), np.zeros((1, SIDE, SIDE, 3), np.uint8))
        for m in (made, again)
    )
    assert jax.tree.map(lambda x: x.shape, first) == jax.tree.map(
        lambda x: x.shape, second
    )


def test_parameters_are_float32(name):
    params, state = variables(name)
    assert {x.dtype for x in jax.tree.leaves((params, state))} == {jnp.float32.dtype}


def test_losses_and_boxes_are_float32_whatever_is_computed_in(name):
    half = models.make(**{**TINY[name], "dtype": "bfloat16"})
    data, params = batch(), variables(name)
    loss, (state, metrics) = jax.eval_shape(half.loss, *params, data, key())
    found = jax.eval_shape(half.predict, *params, data.images, None, data.proposals)
    floats = jax.tree.leaves((loss, state, metrics, found.boxes, found.scores))
    assert {x.dtype for x in floats} - {jnp.int32.dtype} == {jnp.float32.dtype}


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
    if model(name).finish is not None:
        params, state = variables(name)
        fitted = model(name).finish(params, state, [batch(), batch(seed=1)])
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
    valid = data.objects.valid
    far = data.proposals.valid[:, valid.shape[1] :]
    # Half of the proposals lie beside objects, those of padding included.
    beside = np.concatenate([valid, far], axis=1)
    data = data.replace(proposals=Proposals(data.proposals.boxes, beside))

    def junk(x, real=valid):
        noise = (rng.standard_normal(x.shape) * 1e3).astype(x.dtype)
        if x.dtype == np.int32:
            noise = rng.integers(0, 3, x.shape).astype(x.dtype)
        return np.where(real.reshape(real.shape + (1,) * (x.ndim - 2)), x, noise)

    objects = data.objects.replace(
        boxes=junk(data.objects.boxes),
        labels=junk(data.objects.labels),
        masks=junk(data.objects.masks),
        keypoints=junk(data.objects.keypoints),
        crowd=np.where(valid, data.objects.crowd, rng.random(valid.shape) < 0.5),
    )
    proposals = Proposals(junk(data.proposals.boxes, beside), beside)
    spoilt = data.replace(objects=objects, proposals=proposals)
    close(run(name, data), run(name, spoilt), rtol=0, atol=0)


def test_order_of_objects_is_irrelevant(name):
    data = batch()
    flipped = jax.tree.map(lambda x: x[:, ::-1].copy(), data.objects)
    (loss, _), _ = run(name, data)
    (again, _), _ = run(name, data.replace(objects=flipped))
    assert again == pytest.approx(float(loss), rel=1e-5)


def boxed(*box, count=6):
    """A batch whose only object is `box`, `count` times over two images."""
    data = batch(objects=count)
    boxes = np.broadcast_to(np.float32(box), data.objects.boxes.shape).copy()
    return data.replace(objects=data.objects.replace(boxes=boxes))


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
    crowded = np.zeros_like(data.objects.crowd)
    crowded[:, 0] = True
    (_, metrics), gradients = run(
        name, data.replace(objects=data.objects.replace(crowd=crowded))
    )
    assert metrics["positives"] == 0
    assert finite(gradients)


def test_images_that_fill_up_a_batch_count_for_nothing(name):
    if TINY[name].get("norm", "batch") == "batch":
        pytest.skip("batch statistics see every image of a batch, as they must")
    whole, data = batch(count=2), batch(count=2, seed=3)
    data = jax.tree.map(lambda a, b: np.concatenate([a, b]), whole, data)
    data = data.replace(valid=np.array([True, True, False, False]))
    other = data.replace(images=np.concatenate([whole.images, whole.images[::-1]]))
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
            with layout.rows():
                whole = layout.gather(params)
                return model(name).loss(whole, state, data, key())[0]

        return jax.value_and_grad(loss)(params)

    (loss, _), gradients = run(name, data)
    split, split_gradients = both(*layout.keep(variables(name)), layout.put(data))
    assert split == pytest.approx(float(loss), rel=1e-5)
    scale = optax.tree.norm(gradients)
    apart = jax.tree.map(lambda a, b: a - jax.device_get(b), gradients, split_gradients)
    assert optax.tree.norm(apart) < 1e-4 * scale


def test_what_a_batch_lacks_is_told(name):
    data, params = batch(), variables(name)
    bare = data.replace(
        proposals=None, objects=data.objects.replace(masks=None, keypoints=None)
    )
    asked = has_masks(name) or model(name).needs_proposals or "keypoints" in TINY[name]
    if not asked:
        assert jax.eval_shape(model(name).loss, *params, bare, key())[0].shape == ()
        return
    with pytest.raises(ValueError, match=r"(batch|given|none).*; "):
        jax.eval_shape(model(name).loss, *params, bare, key())


def test_predictions_have_a_fixed_shape_and_order(name):
    params, state = variables(name)
    data = batch()
    found = predict(name)(params, state, data.images, None, data.proposals)
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
    data, window = batch(), np.float32([[5, 0, 40, 64], [0, 8, 64, 20]])
    found = predict(name)(params, state, data.images, window, data.proposals)
    low, high = window[:, None, :2], window[:, None, 2:]
    some = np.asarray(found.valid)[..., None]
    assert some.any()
    assert (~some | (found.boxes[..., :2] >= low)).all()
    assert (~some | (found.boxes[..., 2:] <= high)).all()


def test_predictions_do_not_depend_on_the_rest_of_the_batch(name):
    params, state = variables(name)
    data = batch()
    both = predict(name)(params, state, data.images, None, data.proposals)
    twin = jax.tree.map(lambda x: np.stack([x[0], x[0]]), data)
    alone = predict(name)(params, state, twin.images, None, twin.proposals)
    close(
        jax.tree.map(lambda x: x[0], both),
        jax.tree.map(lambda x: x[1], alone),
        rtol=1e-4,
        atol=1e-4,
    )


def test_a_second_batch_compiles_nothing(name):
    params, state = variables(name)
    traces = []

    @jax.jit
    def loss(data):
        traces.append(1)
        return model(name).loss(params, state, data, key())[0]

    loss(batch(objects=1, seed=1))
    loss(batch(objects=5, seed=2))
    assert len(traces) == 1


def test_a_few_steps_lower_the_loss(name):
    params, state = variables(name)
    data, optimizer = batch(), optax.adam(1e-2)

    @jax.jit
    def step(params, state, memory):
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
