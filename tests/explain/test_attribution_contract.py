"""Attributions of every model, by every method that it has what it needs for.

Those that cannot say so: guided backpropagation and the deconvnet are of networks with
rectifiers, and units within, as class maps, of networks that see the picture.
"""

import functools

import jax
import numpy as np
import pytest
from families import (
    EVERY,
    OF_PIXELS,
    SIDE,
    batch,
    model,
    parameters,
    task_of,
    variables,
)

from detjax import tasks
from detjax.errors import UserError
from detjax.explain import cam, influence, layers, methods, rectified

# Each kind of answer, the first two of every day; the others run with
# DETJAX_EVERY_FAMILY.
SOME = ("yolact", "fcn_vgg", "dense_fpn", "scene_fpn")
# Places of maxima have no slope at all.
FLAT = ("hourglass_pose",)
# What has a value wherever the answers have a slope.
BY_SLOPE = ("gradient", "gradient_x_input", "integrated_gradients", "smoothgrad")
BY_RECTIFIER = ("guided_backprop", "deconvnet")
OF_CROPS = ("rcnn", "sliding_window")


def models():
    for one in parameters():
        marks = [pytest.mark.slow] * (one.id not in SOME[:2])
        marks += [EVERY] * (one.id not in SOME)
        yield pytest.param(*one.values, id=one.id, marks=marks)


@pytest.mark.parametrize("name", [*models()])
def test_every_method_attributes_every_model(name, monkeypatch):
    monkeypatch.setattr(methods, "STEPS", 3)
    monkeypatch.setattr(methods, "COPIES", 2)
    monkeypatch.setattr(methods, "WINDOWS", 3)
    made, weights, data = model(name), variables(name), batch(name=name)
    given = (*weights, data.inputs)
    task = tasks.TASKS[task_of(name)]
    quantity, count = next(iter(task.quantities.values())), 1
    if task.name == "detection":
        quantity, count = functools.partial(quantity, index=np.arange(3)), 3
    wanted = {
        k: v for k, v in methods.METHODS.items() if k not in cam.gradients.METHODS
    }
    if not rectified.rectifiers(made.predict, *given):
        for method in BY_RECTIFIER:
            with pytest.raises(UserError, match="no rectifier"):
                wanted.pop(method)(made.predict, quantity)(*given)
    layer = None
    if name not in OF_CROPS:
        known = layers.shapes(made.predict, *given)
        layer = cam.usual(known, (SIDE, SIDE), made.spec.groups.get("head"))[0]

    @jax.jit
    def every(*given):
        maps = {k: of(made.predict, quantity)(*given) for k, of in wanted.items()}
        if layer is None:
            return maps, {}
        units = {
            of.__name__: of(made.predict, quantity, layer, steps=2)(*given)
            for of in (influence.internal, influence.conductance)
        }
        return maps, units

    maps, units = jax.device_get(every(*given))
    for method, found in maps.items():
        assert found.shape == (count, 2, SIDE, SIDE), method
        assert np.isfinite(found).all(), method
        if method in BY_SLOPE and name not in FLAT:
            # Of some quantity of each image.
            assert np.abs(found).max(axis=(0, 2, 3)).min() > 0, method
    for way, found in units.items():
        assert found.shape[:2] == (count, 2), way
        assert np.isfinite(found).all(), way
        if name not in FLAT:
            assert np.abs(found).max() > 0, way


def test_there_is_one_of_each_kind_of_answer():
    assert {task_of(name) for name in SOME} == {"detection", *OF_PIXELS}
    assert {*BY_SLOPE, *BY_RECTIFIER} <= {*methods.METHODS}
