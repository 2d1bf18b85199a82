"""Class activation maps of every model, by every method that it has what it needs for.

Those that cannot say so: networks of crops have no map of the picture, and the classic
one is of classifiers.
"""

import functools

import jax
import numpy as np
import pytest
from families import (
    SIDE,
    batch,
    model,
    parameters,
    task_of,
    variables,
)

from detjax import tasks
from detjax.errors import UserError
from detjax.explain import layers
from detjax.explain.cam import classic, eigen, gradients, joined, score
from detjax.explain.cam.default import usual
from detjax.tasks.detection.quantities import alike

# Their backbone sees crops.
OF_CROPS = ("rcnn",)
# Of every day.
DAILY = ("yolact", "fcn_vgg")


def models():
    """Those of every day are quick."""
    for one in parameters():
        marks = [*one.marks]
        if one.id not in DAILY and not marks:
            marks = [pytest.mark.slow]
        yield pytest.param(*one.values, id=one.id, marks=marks)


def zip_of(first, second):
    return {k: (x, second[k]) for k, x in jax.device_get(first).items()}


def layers_of(name, made, weights, inputs):
    known = layers.shapes(made.predict, *weights, inputs)
    return usual(known, (SIDE, SIDE), made.spec.groups.get("head"))


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
            layers_of(name, made, weights, data.inputs)
        return
    names = layers_of(name, made, weights, data.inputs)

    @jax.jit
    def every(params, state, inputs):
        slopes = layers.slopes(made.predict, names, usual)(params, state, inputs)
        given = {n: (slopes.values[n], slopes.gradients[n]) for n in names}
        raw = {
            method: {n: gradients.of_batch(of, *x).raw for n, x in given.items()}
            for method, of in gradients.METHODS.items()
        }
        raw["eigen-cam"] = {
            n: jax.vmap(eigen.eigen_cam)(x)[:, None] for n, (x, _) in given.items()
        }
        if task.name == "detection":
            found = made.predict(params, state, inputs)
            same = functools.partial(
                alike, objects=found.boxes[:, :1], labels=found.labels[:, :1]
            )
        else:
            same = usual
        by_score = score.maps(made.predict, names, same)(params, state, inputs)
        raw["score-cam"] = by_score.raw
        return raw, {k: joined(x, (SIDE, SIDE)) for k, x in raw.items()}

    for method, (raw, heat) in zip_of(*every(*weights, data.inputs)).items():
        q = 1 if method in ("eigen-cam", "score-cam") else count
        assert heat.shape == (2, q, SIDE, SIDE), method
        assert np.isfinite(heat).all(), method
        assert heat.min() >= 0, method
        assert heat.max() <= 1, method
        assert all(np.isfinite(x).all() for x in raw.values()), method
        assert max(np.abs(x).max() for x in raw.values()) > 0, method
    with pytest.raises(UserError, match="classic CAM is of classifiers"):
        classic.pooled(made, *weights, data.inputs)
