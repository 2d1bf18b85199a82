"""What the layers of a network return, by name: read or changed while it is traced.

A layer is a module, called as its parameters are: "backbone.layer4.2". A second call of
the same module is "backbone.layer4.2#2", an array of several that a module returns
"backbone:c5" or "backbone:3". `IMAGES` are the normalised images. No network needs to
know of it.
"""

import contextlib
import contextvars
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import jax
from flax import linen
from flax.core import tracers

from detjax.types import Array

IMAGES = "images"
# (name, what the layer returns) -> what takes its place
Watch = Callable[[str, Array], Array]

_watch: contextvars.ContextVar[Watch | None] = contextvars.ContextVar(
    "watch", default=None
)


def site(name: str, x: Array) -> Array:
    """`x`, which is called `name` without being what a module returns."""
    watch = _watch.get()
    return x if watch is None else watch(name, x)


@contextlib.contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """Context in which `watch` sees what layers return, and answers what they shall.

    It sees arrays in the order of computation, a layer's after those of the layers in
    it. What is computed inside `jax.vmap`, `jax.checkpoint` or a loop of a model is not
    seen: it has no value outside.
    """
    outside, calls = tracers.current_trace(), Counter[str]()

    def numbered(name: str, x: Array) -> Array:
        if tracers.current_trace() != outside:
            return x
        calls[name] += 1
        return watch(f"{name}#{calls[name]}" if calls[name] > 1 else name, x)

    def call(known: Any, given: tuple, named: dict, context: Any) -> Any:
        found = known(*given, **named)
        path = context.module.path
        if context.method_name != "__call__" or not path:
            return found
        name = ".".join(path)

        def one(inner: Any, x: Any) -> Any:
            if not isinstance(x, jax.Array):
                return x
            key = jax.tree_util.keystr(inner, simple=True, separator=".")
            return numbered(f"{name}:{key}" if key else name, x)

        return jax.tree_util.tree_map_with_path(one, found)

    around = _watch.get()

    def both(name: str, x: Array) -> Array:
        # As interceptors do: the innermost first, which those around see the answer of.
        x = numbered(name, x)
        return x if around is None else around(name, x)

    token = _watch.set(both)
    try:
        with linen.intercept_methods(call):
            yield
    finally:
        _watch.reset(token)
