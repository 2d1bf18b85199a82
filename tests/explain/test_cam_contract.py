"""Class activation maps of every model, by every method that it has what it needs for.

Those that cannot say so: networks of crops have no map of the picture, and the classic
one is of classifiers.
"""

import functools

import jax
import numpy as np
import pytest
from families import (
    OF_PIXELS,
    SIDE,
    batch,
    everything,
    model,
    parameters,
    task_of,
    variables,
)

from detjax import tasks
from detjax.errors import UserError
from detjax.explain import layers
from detjax.explain.cam import classic, eigen, gradients, joined, score
from detjax.explain.cam.default import coarsest

# Their backbone sees crops.
OF_CROPS = ("rcnn",)
DAILY = ("yolact", "fcn_vgg", "dense_fpn", "scene_fpn")


def models():
    """Of each task the first is quick."""
    for one in parameters():
        marks = [*one.marks]
        if one.id not in DAILY and not marks:
            marks = [pytest.mark.slow]
        yield pytest.param(*one.values, id=one.id, marks=marks)


def zip_of(first, second):
    return {k: (np.asarray(x), np.asarray(second[k])) for k, x in first.items()}


def layer_of(name, made, weights, inputs):
    known = layers.shapes(made.predict, *weights, inputs)
    return coarsest(known, (SIDE, SIDE), made.spec.groups.get("head"))


@pytest.mark.parametrize("name", [*models()])
def test_every_method_maps_every_model(name):
    made, weights, data = model(name), variables(name), batch(name=name)
    task = tasks.TASKS[task_of(name)]
    usual = next(iter(task.quantities.values()))
    count = 1
    if task.name == "detection":
        usual, count = functools.partial(usual, index=np.arange(3)), 3
    if name in OF_CROPS:
        with pytest.raises(UserError, match="networks that look at crops"):
            layer_of(name, made, weights, data.inputs)
        return
    layer = layer_of(name, made, weights, data.inputs)

    @jax.jit
    def every(params, state, inputs):
        slopes = layers.slopes(made.predict, [layer], usual)(params, state, inputs)
        given = slopes.values[layer], slopes.gradients[layer]
        raw = {
            method: gradients.of_batch(of, *given).raw
            for method, of in gradients.METHODS.items()
        }
        raw["eigen-cam"] = jax.vmap(eigen.eigen_cam)(given[0])[:, None]
        if task.name == "detection":
            found = made.predict(params, state, inputs)
            same = functools.partial(
                task.quantities["alike"],
                objects=found.boxes[:, :1],
                labels=found.labels[:, :1],
            )
        else:
            same = usual
        by_score = score.maps(made.predict, [layer], same)(params, state, inputs)
        raw["score-cam"] = by_score.raw[layer]
        return raw, {k: joined({layer: x}, (SIDE, SIDE)) for k, x in raw.items()}

    for method, (raw, heat) in zip_of(*every(*weights, data.inputs)).items():
        q = 1 if method in ("eigen-cam", "score-cam") else count
        assert heat.shape == (2, q, SIDE, SIDE), method
        assert np.isfinite(heat).all(), method
        assert heat.min() >= 0, method
        assert heat.max() <= 1, method
        assert np.isfinite(raw).all(), method
        assert np.abs(raw).max() > 0, method
    with pytest.raises(UserError, match="classic CAM is of classifiers"):
        classic.pooled(made, *weights, data.inputs)


def test_there_is_a_quick_one_of_each_task():
    assert {task_of(name) for name in DAILY} == {"detection", *OF_PIXELS}
    assert {*DAILY} <= {*everything()}
