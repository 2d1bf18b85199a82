"""Small batches with an answer for every pixel, and what every such model must hold."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from detjax.types import Batch, Inputs, LabelMap, Model, ValueMap, View

CLASSES = 3
# The colours of the classes.
COLOURS = np.array([[40, 40, 40], [220, 60, 60], [60, 60, 220], [60, 220, 60]])


def batch(task="segmentation", count=2, size=(48, 64), classes=CLASSES, seed=0):
    """Pictures of rectangles whose class is their colour; the first class lies behind.

    A corner of each is ignored. The numbers of the task "dense" are those of a depth:
    the further down the nearer, and rectangles stand out. As many classes as `COLOURS`.
    """
    rng = np.random.default_rng(seed)
    h, w = size
    labels = np.zeros((count, h, w), np.uint8)
    values = np.repeat(np.linspace(8, 2, h, dtype=np.float32)[:, None], w, axis=1)
    values = np.stack([values] * count)
    for i in range(count):
        for j in range(4):
            y, x = rng.integers(0, h * 3 // 4), rng.integers(0, w * 3 // 4)
            place = i, slice(y, y + h // 3), slice(x, x + w // 3)
            labels[place] = 1 + (i + j) % (classes - 1)
            values[place] = rng.uniform(1, 6)
    noise = rng.integers(-20, 20, (count, h, w, 3))
    images = (COLOURS[labels] + noise).astype(np.uint8)
    valid = np.ones((count, h, w), bool)
    valid[:, : h // 6, : w // 4] = False
    labels[~valid], values[~valid] = 0, 0
    view = View(
        affine=np.tile(np.eye(3, dtype=np.float32)[:2], (count, 1, 1)),
        sizes=np.tile(np.array(size, np.int32), (count, 1)),
        valid=np.ones(count, bool),
    )
    targets = {
        "segmentation": LabelMap(labels, valid),
        "dense": ValueMap(values, valid),
    }
    index = np.arange(count, dtype=np.int32)
    return Batch(Inputs(images, view), targets[task], index)


def junk(data: Batch) -> Batch:
    """`data` with other labels or values wherever they are not valid."""
    rng = np.random.default_rng(5)
    target = data.target
    name = "labels" if isinstance(target, LabelMap) else "values"
    held = getattr(target, name)
    most = 255 if name == "labels" else 1e3
    drawn = rng.uniform(0, most, held.shape).astype(held.dtype)
    return data.replace(
        target=target.replace(**{name: np.where(target.valid, held, drawn)})
    )


def with_filler(data: Batch) -> Batch:
    """`data` and an image of junk that only fills the batch up."""
    rng = np.random.default_rng(6)

    def one_more(x):
        more = rng.integers(0, 200, (1, *x.shape[1:])).astype(x.dtype)
        return np.concatenate([x, more])

    longer = jax.tree.map(one_more, data)
    valid = np.append(data.inputs.view.valid, False)
    view = longer.inputs.view.replace(valid=valid)
    return longer.replace(inputs=longer.inputs.replace(view=view))


def step(model: Model):
    """(params, state, batch) -> (loss, (state, metrics)), gradients; compiled."""
    found = jax.value_and_grad(model.loss, has_aux=True)
    return jax.jit(lambda p, s, b: found(p, s, b, jax.random.key(1)))


def started(model: Model, data: Batch):
    """Parameters and state of `model` as they begin."""
    return jax.jit(model.init)(jax.random.key(0), data.inputs.images)


def check(model: Model, data: Batch, *, filler: bool = True, rtol: float = 1e-4):
    """Asserts what holds of every model of pixels; returns params, state, the answer.

    Loss, gradients and answer are finite, and what lies in ignored pixels changes
    nothing; nor, with `filler`, does an image that fills the batch up: for models
    without statistics of a batch.
    """
    params, state = started(model, data)
    run = step(model)
    (loss, (_, metrics)), gradients = run(params, state, data)
    assert np.isfinite(loss)
    assert all(np.isfinite(x) for x in metrics.values())
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
        assert jnp.isfinite(gradient).all(), jax.tree_util.keystr(path)
    cases = [junk(data)] + [with_filler(data)] * filler
    for other in cases:
        (again, _), same = run(params, state, other)
        np.testing.assert_allclose(again, loss, rtol=rtol)
        apart = optax.tree.norm(jax.tree.map(jnp.subtract, same, gradients))
        assert apart <= rtol * optax.tree.norm(gradients)
    answer = jax.jit(model.predict)(params, state, data.inputs)
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(answer))
    return params, state, answer


def names_without_gradient(model: Model, data: Batch) -> set[str]:
    """The parameters that no loss reaches, by dotted name."""
    params, state = started(model, data)
    _, gradients = step(model)(params, state, data)
    return {
        ".".join(str(key.key) for key in path)
        for path, gradient in jax.tree_util.tree_leaves_with_path(gradients)
        if not jnp.any(gradient != 0)
    }
