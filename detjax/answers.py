"""Answers of a model to batches: the device works while the host does.

    prepare     the next batch is read and sent
    compute     while the answers of those before it
    return      come to the host, and are brought back to their pictures by threads

A few batches are under way at a time, however many there are.
"""

import contextlib
import functools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from flax.errors import ScopeParamNotFoundError, ScopeParamShapeError

from detjax.data import crew
from detjax.errors import UserError, reason
from detjax.sharding import Layout
from detjax.types import Inputs, Task

T = TypeVar("T")
AHEAD = 2  # batches that the device has beside the one whose answers are awaited
MOST_THREADS = 8  # beyond these threads wait for each other


class Image(NamedTuple):
    """One image of a batch, and the answer to it on the host."""

    answer: Any  # without leading axis
    affine: np.ndarray  # [2 3]: original pixel -> network pixel
    size: tuple[int, int]  # (h, w) of the original
    network_size: tuple[int, int]


@functools.lru_cache(maxsize=8)
def jitted(
    predict: Callable[[Any, Any, Inputs], Any],
    shrink: Callable[[Any], Any],
    layout: Layout,
) -> Callable[[Any, Any, Inputs], Any]:
    """A model's jitted `predict` and `shrink` on `layout`: (params, state, inputs).

    Cached by its arguments, so that only the first use compiles.
    """

    @functools.partial(jax.jit, out_shardings=layout.by_image())
    def call(params, state, inputs):
        with layout.traced():
            return shrink(predict(layout.gather(params), state, inputs))

    return call


def answered(
    call: Callable[[Inputs], Any],
    batches: Iterable[tuple[T, Inputs]],
    layout: Layout,
) -> Iterator[tuple[T, Inputs, Any]]:
    """Things, their inputs and this process's answers to them on the host, in order.

    `call` is of inputs on the devices. The next batches are on their way to them, and
    at work there, while one's answers are awaited or used.
    """

    def started() -> Iterator[tuple[T, Inputs, Callable[[], Any]]]:
        for thing, inputs in batches:
            whole = filled_up(inputs, layout.local_shares, len(inputs.images))
            with weights_checked():
                answers = call(layout.put_inputs(whole))
            yield thing, inputs, layout.fetched(answers)

    for thing, inputs, fetch in behind(started(), AHEAD):
        yield thing, inputs, fetch()


def images_of(inputs: Inputs, answers: Any) -> Iterator[tuple[int, Image]]:
    """The valid images of a batch by row, with their answers."""
    view = inputs.view
    for i in np.flatnonzero(view.valid):
        yield (
            int(i),
            Image(
                jax.tree.map(lambda x, i=i: x[i], answers),
                view.affine[i],
                tuple(view.sizes[i].tolist()),
                inputs.images.shape[1:3],
            ),
        )


def restored(
    task: Task, images: Iterable[tuple[T, Image]], threads: int | None = None
) -> Generator[tuple[T, Any], None, None]:
    """What is found in images, with the things they come with, in their order.

    Threads bring the answers back; they are done when the iterator is closed.
    """

    def restore(thing: tuple[T, Image]) -> tuple[T, Any]:
        return thing[0], task.restore(*thing[1])

    return crew.serial(restore, images, threads or host_threads())


def host_threads() -> int:
    """The threads that work beside the device."""
    return min(MOST_THREADS, crew.cores())


def behind(things: Iterable[T], number: int) -> Iterator[T]:
    """`things`, each once so many after it are there."""
    waiting: deque[T] = deque()
    for thing in things:
        waiting.append(thing)
        if len(waiting) > number:
            yield waiting.popleft()
    yield from waiting


def filled_up(rows: Any, shares: int, count: int) -> Any:
    """Arrays [count ...] padded with the last row until `shares` divides `count`."""
    missing = -count % shares
    if not missing:
        return rows
    return jax.tree.map(
        lambda x: np.concatenate([x, np.repeat(x[-1:], missing, axis=0)]), rows
    )


@contextlib.contextmanager
def weights_checked() -> Iterator[None]:
    """Turns errors of weights that do not fit the network into a `UserError`."""
    try:
        yield
    except (ScopeParamShapeError, ScopeParamNotFoundError) as error:
        raise UserError(
            "the weights do not fit the network that config.json describes "
            f"({reason(error)}); put back the config.json that the run wrote"
        ) from error
