"""What is done to each image of a batch by itself.

A program sees a whole batch, and a loop inside `jax.vmap` goes on until the last image
is done. Where a batch is split among devices that question would make them talk to each
other in every round. So work on single images says that it is that, and a layout of
devices may have each do its own images: see `sharding.Layout.traced`.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import jax

F = TypeVar("F", bound=Callable[..., Any])
# (function, in_axes) -> the same function of a whole batch
Split = Callable[[Callable[..., Any], Any], Callable[..., Any]]

_split: contextvars.ContextVar[Split] = contextvars.ContextVar(
    "split", default=lambda function, in_axes: function
)


def each_image(function: F, in_axes: Any = 0) -> F:
    """`function` of one image as one of a batch: `jax.vmap`, on every device by itself.

    in_axes: as `jax.vmap` has them, of 0 and None alone. Keywords are of all images.
    """
    return each_share(jax.vmap(function, in_axes), in_axes)


def each_share(function: F, in_axes: Any = 0) -> F:
    """`function` of a batch, called with the share of it that a device has.

    It must do the same whatever images are beside an image, and answer with the images
    on axis 0 of all arrays. in_axes: as of `each_image`. What it closes over is whole
    on every device.
    """

    def call(*args: Any, **keywords: Any) -> Any:
        return _split.get()(function, in_axes)(*args, **keywords)

    return cast(F, call)


@contextlib.contextmanager
def splitting(split: Split) -> Iterator[None]:
    """Context in which `split` decides how the functions of this file see batches."""
    token = _split.set(split)
    try:
        yield
    finally:
        _split.reset(token)
