"""What every model of pixels owes its users, whatever of them it tells."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import (
    OF_PIXELS,
    SIDE,
    batch,
    close,
    finite,
    forget,
    parameters,
    predict,
    run,
    task_of,
    variables,
    with_view,
)

from detjax.tasks import TASKS
from detjax.types import LabelMap, ValueMap

# Scoped, so that all tests of a model come one after the other.
pytestmark = pytest.mark.parametrize("name", parameters(*OF_PIXELS), scope="module")
KINDS = LabelMap, ValueMap


@pytest.fixture(autouse=True, scope="module")
def _forget_the_model_before(name):
    """Lets go of what was compiled of a model when its last test is done."""
    yield
    forget()
    jax.clear_caches()


def changed(data, change):
    """`data` with each map of its target changed: `change` gets a map."""
    target = jax.tree.map(change, data.target, is_leaf=lambda x: isinstance(x, KINDS))
    return data.replace(target=target)


def junk(found):
    """A map with other content where it is not valid."""
    rng = np.random.default_rng(5)
    if isinstance(found, LabelMap):
        noise = rng.integers(0, 256, found.labels.shape).astype(found.labels.dtype)
        return found.replace(labels=np.where(found.valid, found.labels, noise))
    noise = (1e3 * rng.standard_normal(found.values.shape)).astype(np.float32)
    return found.replace(values=np.where(found.valid, found.values, noise))


def nothing(found):
    """A map of which nothing is valid."""
    return found.replace(valid=np.zeros_like(found.valid))


def one_pixel(found):
    """A map of which one pixel of the first image is valid."""
    valid = np.zeros_like(found.valid)
    valid[0, SIDE // 2, SIDE // 2] = True
    return found.replace(valid=valid)


def test_what_is_ignored_is_inert(name):
    data = batch(name=name)
    close(run(name, data), run(name, changed(data, junk)), rtol=0, atol=0)


@pytest.mark.parametrize("change", [nothing, one_pixel])
def test_extreme_maps_train(name, change):
    (loss, metrics), gradients = run(name, changed(batch(name=name), change))
    assert finite((loss, metrics, gradients))


def test_maps_of_one_class_train(name):
    (loss, metrics), gradients = run(name, batch(objects=0, name=name))
    assert finite((loss, metrics, gradients))


def test_a_loss_is_of_what_is_measured(name):
    (loss, metrics), _ = run(name, batch(name=name))
    assert finite((loss, metrics))
    assert metrics
    assert 0 <= metrics.get("correct", 0) <= 1


def test_answers_come_back_to_pictures_of_any_size(name):
    task, inputs = TASKS[task_of(name)], batch(name=name).inputs
    params, state = variables(name)
    call = jax.jit(lambda *args: task.shrink(predict(name)(*args)))
    answers = jax.device_get(call(params, state, inputs))
    assert finite(answers)
    one = jax.tree.map(lambda x: x[0], answers)
    affine = np.float32([[0.5, 0, 4], [0, 0.5, 2]])
    found = task.restore(one, affine, (111, 97), (SIDE, SIDE))
    sizes = {np.shape(x) for x in jax.tree.leaves(found)}
    assert sizes == {(111, 97)}


def test_views_and_tiles_of_answers_are_answers(name):
    """Mirrored twice an answer is what it was; several of them merge into one."""
    task, inputs = TASKS[task_of(name)], batch(name=name).inputs
    params, state = variables(name)
    answer = predict(name)(params, state, inputs)
    size = (SIDE, SIDE)
    again = task.mirror(task.mirror(answer, size, ()), size, ())
    close(jax.device_get(again), jax.device_get(answer))
    merged = jax.device_get(task.shrink(task.merge([answer, again], 0.5)))
    assert jax.tree.map(jnp.shape, merged) == jax.tree.map(
        jnp.shape, jax.eval_shape(task.shrink, answer)
    )


def test_padding_of_a_batch_counts_for_nothing(name):
    """The target of an image that only fills up a batch."""
    data = with_view(batch(name=name), valid=np.array([True, False]))

    def other(found):
        changed = junk(nothing(found))
        return jax.tree.map(lambda a, b: np.concatenate([a[:1], b[1:]]), found, changed)

    (loss, _), gradients = run(name, data)
    (again, _), others = run(name, changed(data, other))
    close((loss, gradients), (again, others), rtol=1e-6)
