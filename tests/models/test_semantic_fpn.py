"""One and two branches on a feature pyramid."""

import dense_cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from detjax import models
from detjax.models.semantic_fpn import Weighting

SHARED = {
    "backbone": {"name": "resnet10", "width": 8, "norm": "group"},
    "fpn": {"features": 16},
    "head": {"features": 8},
}
LABELS = {"name": "semantic_fpn", "num_classes": dense_cases.CLASSES, **SHARED}
VALUES = {"name": "dense_fpn", "loss": {"start": 3.0}, **SHARED}
SCENE = {
    "name": "scene_fpn",
    "num_classes": dense_cases.CLASSES,
    "dense": {"start": 3.0},
    **SHARED,
}


def scene(**which):
    """A batch with both targets."""
    labels, values = (
        dense_cases.batch(task, **which) for task in ("segmentation", "dense")
    )
    return labels.replace(
        target={"segmentation": labels.target, "dense": values.target}
    )


@pytest.mark.parametrize(
    ("given", "task"),
    [(LABELS, "segmentation"), pytest.param(VALUES, "dense", marks=pytest.mark.slow)],
)
def test_one_branch_holds_what_all_models_hold(given, task):
    data = dense_cases.batch(task)
    _, _, answer = dense_cases.check(models.make(**given), data)
    if task == "segmentation":
        assert answer.logits.shape == (2, 12, 16, dense_cases.CLASSES)
        assert answer.size == (48, 64)
    else:
        assert answer.values.shape == (2, 48, 64)
        assert (answer.values > 0).all()


@pytest.mark.slow
def test_two_branches_are_both_alone_with_the_same_weights():
    data = scene()
    both = models.make(**SCENE, weighting={"kind": "fixed", "dense": 0.5})
    params, state = dense_cases.started(both, data)
    (loss, (_, metrics)), gradients = dense_cases.step(both)(params, state, data)
    total = 0.0
    for given, task, branch, weight in (
        (LABELS, "segmentation", "labels", 1.0),
        (VALUES, "dense", "values", 0.5),
    ):
        alone = models.make(**given)
        own = {name: params[name] for name in ("backbone", branch)}
        one = data.replace(target=data.target[task])
        (value, _), own_gradients = dense_cases.step(alone)(own, state, one)
        np.testing.assert_allclose(metrics[task], value, rtol=1e-5)
        jax.tree.map(
            lambda a, b, weight=weight: np.testing.assert_allclose(
                a, weight * b, atol=1e-5
            ),
            gradients[branch],
            own_gradients[branch],
        )
        total += weight * value
    np.testing.assert_allclose(loss, total, rtol=1e-5)


def test_learnt_weights_are_those_of_the_paper():
    data = scene()
    model = models.make(**SCENE)
    params, state = dense_cases.started(model, data)
    params["log_variance"] = s = np.float32([0.7, -0.4])
    (loss, (_, metrics)), gradients = dense_cases.step(model)(params, state, data)
    labels, values = metrics["segmentation"], metrics["dense"]
    wanted = np.exp(-s[0]) * labels + np.exp(-s[1]) / 2 * values + s.sum() / 2
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)
    slopes = [0.5 - np.exp(-s[0]) * labels, 0.5 - np.exp(-s[1]) / 2 * values]
    np.testing.assert_allclose(gradients["log_variance"], slopes, rtol=1e-4)
    # The best variances of given losses make each part as large as the other.
    best = jnp.log(jnp.array([2 * labels, values]))
    (w1, w2), _ = Weighting().of(best)
    np.testing.assert_allclose([w1 * labels, w2 * values], 0.5, rtol=1e-5)


def test_answers_of_a_scene_are_those_of_both_tasks():
    data = scene(size=(40, 52))
    model = models.make(**SCENE)
    params, state = dense_cases.started(model, data)
    found = jax.jit(model.predict)(params, state, data.inputs)
    assert found["segmentation"].logits.shape == (2, 10, 13, dense_cases.CLASSES)
    assert found["dense"].values.shape == (2, 40, 52)
    assert model.spec.task == "scene"


def test_every_parameter_learns():
    data = scene()
    model = models.make(**SCENE)
    assert not dense_cases.names_without_gradient(model, data)
