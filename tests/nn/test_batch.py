"""Work on single images: as `jax.vmap` does it, or by whoever is asked to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hlo import collectives, in_loops, loops

from detjax import sharding
from detjax.nn.batch import each_image, each_share, splitting


def work(tree, shared, key, *, extra):
    """Of one image: a loop whose length is the image's own, noise, and a None."""
    start = jnp.sum(tree["x"]) * shared + extra
    more = jax.lax.while_loop(lambda x: x < 100, lambda x: x * 2 + 1, start)
    return {"y": more, "z": tree["x"] * jax.random.normal(key), "none": tree["none"]}


AXES = ({"x": 0, "none": None}, None, 0)


def arguments(count=8):
    rng = np.random.default_rng(0)
    tree = {"x": rng.random((count, 3), np.float32), "none": None}
    keys = jax.random.split(jax.random.key(3), count)
    return (tree, np.float32(2), keys), {"extra": np.arange(count, dtype=np.float32)}


def test_alone_it_is_vmap():
    args, keywords = arguments()
    expected = jax.vmap(work, AXES)(*args, **keywords)
    found = each_image(work, AXES)(*args, **keywords)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    np.testing.assert_array_equal(each_share(jnp.cumsum)(np.arange(4)), [0, 1, 3, 6])


def test_a_context_says_who_does_it():
    seen = []

    def split(function, in_axes):
        seen.append(in_axes)
        return function

    with splitting(split):
        each_image(jnp.sum)(np.ones((2, 3)))
    each_image(jnp.sum)(np.ones((2, 3)))
    assert seen == [0]


@pytest.mark.parametrize("count", [8, 4, 6], ids="{} images".format)
@pytest.mark.parametrize("options", [{}, {"space": 2}], ids=str)
def test_devices_do_what_vmap_does(options, count):
    """With a gradient, closures and nesting; where images do not divide as well."""
    layout = sharding.make(**options)
    args, keywords = arguments(count)

    def total(scale, mapped):
        def one(tree, shared, key, **keywords):
            found = work(tree, shared, key, **keywords)
            inner = mapped(lambda x: x * scale)(tree["x"])
            return found["z"] * scale + inner, found["y"]

        z, y = mapped(one, AXES)(*args, **keywords)
        return jnp.sum(z**2), y

    expected = jax.value_and_grad(total, has_aux=True)(jnp.float32(1.5), jax.vmap)

    @jax.jit
    def split(scale):
        with layout.traced():
            return jax.value_and_grad(total, has_aux=True)(scale, each_image)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5),
        split(jnp.float32(1.5)),
        expected,
    )


def test_a_loop_over_images_asks_no_other_device():
    """And it is seen where it does: `vmap` asks whether any image goes on."""
    layout = sharding.make(devices=jax.devices()[:4])
    (tree, shared, keys), keywords = arguments()
    given = jax.device_put((tree, keys, keywords), layout.by_image())

    def text(mapped):
        def call(tree, keys, keywords):
            with layout.traced():
                return mapped(work, AXES)(tree, shared, keys, **keywords)

        compiled = jax.jit(call, out_shardings=layout.by_image()).lower(*given)
        return compiled.compile().as_text()

    assert loops(text(jax.vmap))
    assert collectives(in_loops(text(jax.vmap)))
    assert loops(text(each_image))
    assert not collectives(text(each_image).splitlines())
