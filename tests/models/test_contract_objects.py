"""What every detector owes its users: the contract of objects and detections."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from families import (
    SIDE,
    TINY,
    batch,
    close,
    finite,
    forget,
    has_masks,
    key,
    model,
    parameters,
    predict,
    run,
    variables,
    with_inputs,
    with_target,
    with_view,
)

from detjax import models
from detjax.types import Proposals

# Scoped, so that all tests of a model come one after the other.
pytestmark = pytest.mark.parametrize("name", parameters("detection"), scope="module")


@pytest.fixture(autouse=True, scope="module")
def _forget_the_model_before(name):
    """Lets go of what was compiled of a model when its last test is done."""
    yield
    forget()
    jax.clear_caches()


def test_losses_and_boxes_are_float32_whatever_is_computed_in(name):
    half = models.make(**{**TINY[name], "dtype": "bfloat16"})
    data, params = batch(), variables(name)
    loss, (state, metrics) = jax.eval_shape(half.loss, *params, data, key())
    found = jax.eval_shape(half.predict, *params, data.inputs)
    floats = jax.tree.leaves((loss, state, metrics, found.boxes, found.scores))
    assert {x.dtype for x in floats} - {jnp.int32.dtype} == {jnp.float32.dtype}


def test_loss_is_the_sum_of_its_named_parts(name):
    (loss, metrics), gradients = run(name, batch())
    parts = {k: v for k, v in metrics.items() if k != "positives"}
    assert loss == pytest.approx(float(sum(parts.values())), rel=1e-5)
    assert finite(gradients)
    assert optax.tree.norm(gradients) > 0
    assert metrics["positives"] > 0


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


def test_what_a_batch_lacks_is_named(name):
    data, params = batch(), variables(name)
    absent = dict.fromkeys(("masks", "keypoints", "oriented", "amodal"))
    bare = with_target(with_inputs(data, proposals=None), **absent)
    parts = {"keypoint", "pose", "oriented", "amodal"} & {*TINY[name]}
    needed = has_masks(name) or model(name).spec.needs or parts
    if not needed:
        assert jax.eval_shape(model(name).loss, *params, bare, key())[0].shape == ()
        return
    with pytest.raises(ValueError, match=r"(batch|given|none).*; "):
        jax.eval_shape(model(name).loss, *params, bare, key())


def test_predictions_have_a_fixed_shape_and_order(name):
    params, state = variables(name)
    found = predict(name)(params, state, batch().inputs)
    assert found.boxes.shape == (2, 1 if name == "hourglass_pose" else 10, 4)
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
