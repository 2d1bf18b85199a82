"""Every layout of the mesh computes what one device does."""

import itertools

import jax
import numpy as np
import optax
import pytest
from families import (
    TINY,
    batch,
    key,
    loss_and_gradient,
    model,
    variables,
    with_inputs,
    with_target,
)
from hlo import collectives, in_loops, loops

from detjax import sharding
from detjax.types import Inputs


def tall():
    """Eight images, high enough to be split among eight devices at some levels."""
    data = batch(count=8)
    filled = [(0, 0), (0, 192), (0, 0), (0, 0)]
    masks = np.pad(data.target.masks, [(0, 0), (0, 0), (0, 96), (0, 0)])
    images = np.pad(data.inputs.images, filled, mode="reflect")
    return with_target(with_inputs(data, images=images), masks=masks)


@pytest.fixture(scope="module")
def alone():
    """The loss and gradients of one device, batch norm in training mode."""
    (loss, _), gradients = loss_and_gradient("yolact")(
        *variables("yolact"), tall(), key()
    )
    return float(loss), gradients


@pytest.mark.parametrize(
    "options",
    [{"params": "fsdp"}, {"space": 2}, {"space": 8}, {"params": "fsdp", "space": 4}],
    ids=str,
)
def test_a_layout_gives_the_loss_and_gradients_of_one_device(options, alone):
    layout = sharding.make(**options)
    assert layout.mesh.size == 8

    @jax.jit
    def both(params, state, data):
        def loss(params):
            with layout.traced():
                whole = layout.gather(params)
                return model("yolact").loss(whole, state, data, key())[0]

        return jax.value_and_grad(loss)(params)

    loss, gradients = both(*layout.keep(variables("yolact")), layout.put(tall()))
    assert loss == pytest.approx(alone[0], rel=1e-5)
    for ours, theirs in zip(
        jax.tree.leaves(gradients), jax.tree.leaves(alone[1]), strict=True
    ):
        apart = np.linalg.norm(np.asarray(ours) - theirs)
        assert apart <= 1e-5 * max(np.linalg.norm(theirs), 1e-2)


def test_fsdp_keeps_a_part_of_every_large_array_on_each_device():
    layout = sharding.make(params="fsdp")
    params, _ = variables("yolact")
    memory = optax.adam(1e-3).init(params)
    kept = layout.keep({"params": params, "opt_state": memory})
    whole, split = 0, 0
    for path, x in jax.tree_util.tree_leaves_with_path(kept):
        here = x.addressable_shards[0].data.size
        if jax.tree_util.keystr(path, simple=True, separator=".").endswith("kernel"):
            whole, split = whole + x.size, split + here
        else:
            assert here == x.size
    assert split < 0.2 * whole
    jax.tree.map(np.testing.assert_array_equal, layout.on_host(kept["params"]), params)


def test_what_does_not_divide_is_said_so():
    with pytest.raises(ValueError, match=r"sharding.params='zero' is not one of"):
        sharding.make(params="zero")
    with pytest.raises(ValueError, match=r"space=3 does not divide the 8 devices"):
        sharding.make(space=3)
    with pytest.raises(ValueError, match=r"65 pixels high do not divide among .*=2"):
        sharding.make(space=2).put_inputs(Inputs(np.zeros((4, 65, 64, 3), np.uint8)))
    with pytest.raises(ValueError, match=r"batch of 3 images .* 8 devices"):
        sharding.make().put_inputs(Inputs(np.zeros((3, 64, 64, 3), np.uint8)))


def test_weights_are_used_on_fewer_devices_than_they_were_trained_on():
    for asked, space in ((1, 1), (2, 2), (3, 1), (6, 2), (16, 8)):
        layout = sharding.nearest(params="fsdp", space=asked)
        assert layout.mesh.shape == {"data": 8 // space, "space": space}
        assert layout.params == "fsdp"


def test_images_come_back_in_their_order():
    layout = sharding.make(space=2)
    rows = np.arange(16, dtype=np.float32).reshape(8, 2)
    kept = jax.device_put(rows, layout.by_image())
    np.testing.assert_array_equal(layout.local(kept), rows)


# The others' programs take minutes to compile, and have the same kinds of loops.
QUICK = [(name, "data") for name in ("yolact-frozen-norm", "mask_rcnn-v2", "rcnn")]
LAYOUTS = {"data": {}, "fsdp and rows": {"params": "fsdp", "space": 2}}


@pytest.mark.parametrize(
    "name, kind",
    [
        pytest.param(*both, marks=[] if both in QUICK else [pytest.mark.slow])
        for both in itertools.product(TINY, LAYOUTS)
    ],
)
def test_no_device_asks_another_in_a_loop(name, kind):
    """Suppression, matching and the like go on until the last image is done.

    Where that is asked of all devices it takes a message in every round.
    """
    layout = sharding.make(devices=jax.devices()[:4], **LAYOUTS[kind])
    params, state = layout.keep(variables(name))
    data = layout.put(batch(count=4))

    def loss(params, state, data):
        def total(params):
            with layout.traced():
                return model(name).loss(layout.gather(params), state, data, key())[0]

        return jax.value_and_grad(total)(params)

    def predict(params, state, inputs):
        with layout.traced():
            return model(name).predict(layout.gather(params), state, inputs)

    learn = jax.jit(loss).lower(params, state, data).compile().as_text()
    found = jax.jit(predict, out_shardings=layout.by_image())
    find = found.lower(params, state, data.inputs).compile().as_text()
    assert loops(learn)
    for text in (learn, find):
        assert collectives(in_loops(text)) == []
    assert collectives(learn.splitlines())


def test_a_batch_is_put_in_one_call(monkeypatch):
    """Whatever it has; a call an array took as many times as long."""
    calls, put = [], jax.device_put

    def counted(*args, **options):
        calls.append(1)
        return put(*args, **options)

    monkeypatch.setattr(jax, "device_put", counted)
    layout, data = sharding.make(space=2), tall()
    there = layout.put(data)
    assert len(calls) == 1
    assert tuple(there.inputs.images.sharding.spec) == ("data", "space")
    assert tuple(there.target.boxes.sharding.spec) == ("data",)
    jax.tree.map(np.testing.assert_array_equal, there, data)
    assert (
        layout.put_inputs(data.inputs).images.sharding == there.inputs.images.sharding
    )


def test_rows_are_fetched_in_their_order_and_on_their_way_before():
    layout = sharding.make(space=2)
    tree = {"a": np.arange(16.0, dtype=np.float32).reshape(8, 2), "b": np.arange(8)}
    kept = jax.device_put(tree, layout.by_image())
    wait = layout.fetched(kept)
    jax.tree.map(np.testing.assert_array_equal, wait(), tree)
