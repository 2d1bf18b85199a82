"""Moving averages of weights: a numpy oracle over some updates, and a run with one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import TINY, batch

from detjax import models, optim, sharding, train
from detjax.errors import UserError
from detjax.models import ema
from detjax.types import Inputs, Model, Spec

DECAY = 0.3


def line() -> Model:
    """y = w * x with a statistic that counts, as a `Model`."""

    def init(key, images):
        return {"w": jnp.float32(1)}, {"batch_stats": {"n": jnp.float32(0)}}

    def loss(params, state, data, key):
        after = {"batch_stats": {"n": state["batch_stats"]["n"] + 2}}
        return params["w"] ** 2, (after, {"part": params["w"]})

    def predict(params, state, inputs):
        return params["w"], state["batch_stats"]["n"]

    return Model(Spec("detection", 1), init, loss, predict, net=None)


def test_the_average_is_numpys():
    model = ema.ema(line(), DECAY)
    optimizer, _ = optim.make(
        steps=9, schedule={"peak": 0.1, "decay": "constant"}, momentum=0.0
    )
    layout = sharding.make(devices=jax.devices()[:1])
    data = batch(2)
    run = train.create(model.init, optimizer, data.inputs.images, 0)
    step = jax.jit(train.make_step(model, optimizer, layout))
    w, n, mean = 1.0, 0.0, np.zeros(2)
    for t in range(8):
        run, metrics = step(run, data, np.int32(t + 1))
        assert metrics["part"] == pytest.approx(w)
        w, n = w - 0.1 * 2 * w, n + 2
        d = min(DECAY, t / (t + 10))
        mean = d * mean + (1 - d) * np.array([w, n])
        found = model.predict(run.params, run.state, Inputs(data.inputs.images))
        np.testing.assert_allclose(found, mean, rtol=1e-5)
    # The weights that learn are not the ones that predict.
    assert run.params["w"] == pytest.approx(w)
    assert abs(mean[0] - w) > 1e-3


def test_every_model_takes_it_and_learns_the_same():
    settings = TINY["yolact"]
    plain, averaged = models.make(**settings), models.make(**settings, ema=0.9)
    data, key = batch(2), jax.random.key(0)
    params, state = averaged.init(key, data.inputs.images)
    jax.tree.map(np.testing.assert_array_equal, params, state["ema"]["params"])
    values = [
        jax.jit(model.loss)(params, held, data, key)[0]
        for model, held in ((plain, ema.own(state)), (averaged, state))
    ]
    assert values[0] == values[1]
    moved = averaged.updated(jax.tree.map(lambda x: x + 1, params), state)
    found = ema.weights(params, moved)[0]
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b + 1), found, params)


def test_bad_decays_and_models_that_solve_are_refused():
    with pytest.raises(UserError, match=r"model\.ema=2 is not .*between 0 and 1"):
        models.make(**TINY["yolact"], ema=2)
    with pytest.raises(UserError, match="solves for its last parameters"):
        models.make(**TINY["rcnn"], ema=0.9)
