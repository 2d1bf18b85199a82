"""Answers to pictures of any size, several at a time where their inputs are alike."""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from detjax import answers, sharding
from detjax.answers import Image
from detjax.data import example, frames, reduced, sizing, views
from detjax.types import Inputs, Task, View

T = TypeVar("T")
# Images of a device's batch, unless said otherwise; a CPU gains nothing by more than 1.
USUAL = 8
# Pictures that wait for others of their input size: batches, and bytes of their pixels.
WINDOW, MOST_BYTES = 4, 1 << 30


class Given(NamedTuple):
    """A picture, and the input that the network sees of it."""

    image: np.ndarray  # [h w 3] uint8 RGB
    matrix: np.ndarray  # [3 3]: its pixels -> those of the input
    inputs: Inputs  # of one image, without leading axis

    @property
    def shapes(self) -> tuple[Any, ...]:
        """What those that share a batch have in common."""
        return tuple(np.shape(x) for x in jax.tree.leaves(self.inputs))


def prepared(
    image: np.ndarray,
    proposals: np.ndarray | None,
    most_proposals: int | None,
    reduce: bool,
    whole: Callable[..., sizing.Resize] | None = None,
    **declared: Any,
) -> Given:
    """`image` [h w 3] as the network sees it.

    declared: what `sizing.resize_for` takes.
    whole: (size, fill) -> the resize of pictures that are not scaled, and lie in the
        upper left corner of their input; None resizes them as declared.
    proposals: boxes [p 4] in the image's pixels, of which at most `most_proposals` are
        taken; None pads them to few sizes, each of which is compiled.
    reduce: as `data.reduced` has it.
    """
    shape = image.shape[:2]
    if whole is None:
        fit = sizing.resize_for(*shape, **declared)
        matrix = frames.resize(
            frames.Frame(np.eye(3), shape), fit.size, fit.letterbox, fit.scale
        ).matrix
    else:
        fit = whole(shape, tuple(declared.get("fill", sizing.FILL)))
        matrix = np.eye(3)
    room = None
    if proposals is not None:
        most = most_proposals or 1 << max(len(proposals) - 1, 0).bit_length()
        room = jax.tree.map(lambda x: x[0], example.empty_proposals(1, most))
        example.put_proposals(room, proposals, matrix, fit.size)
    view = View(
        affine=matrix[:2].astype(np.float32),
        sizes=np.array(shape, np.int32),
        valid=np.ones((), bool),
    )
    if whole is None:
        move = reduced.move_pixels if reduce else views.move_pixels
        seen = move(image, matrix, fit.size, fit.fill)
    else:
        seen = np.empty((*fit.size, 3), np.uint8)
        seen[:] = fit.fill
        seen[: shape[0], : shape[1]] = image
    return Given(image, matrix, Inputs(seen, view, room))


class Predictor:
    """What a model with its weights finds in pictures.

    prepare: (image, proposals=None) -> `Given`, on the host; threads may call it.
    batch_size: pictures that go to the devices together; None is 1 on a CPU and `USUAL`
        for each device else. They are divided among this process's devices; of fewer
        pictures than devices so many are used.
    """

    def __init__(
        self,
        predict: Callable[[Any, Any, Inputs], Any],
        task: Task,
        params: Any,
        state: Any,
        prepare: Callable[..., Given],
        batch_size: int | None = 1,
    ):
        devices = jax.local_devices()
        if batch_size is None:
            cpu = devices[0].platform == "cpu"
            batch_size = 1 if cpu else USUAL * len(devices)
        self.batch_size, self.prepare, self._task = batch_size, prepare, task
        self._layout = sharding.make(devices=devices[:batch_size])
        params, state = self._layout.keep((params, state))
        call = answers.jitted(predict, task.shrink, self._layout)
        self._call = functools.partial(call, params, state)

    def __call__(
        self,
        image: Any,
        min_score: float = 0.0,
        proposals: np.ndarray | None = None,
    ) -> Any:
        """What is found in `image`; see `predict.TrainedModel`."""
        [answer] = self._started([self.prepare(image, proposals)], 1)()
        return self._task.restore(*known(answer), min_score)

    def answers(
        self, things: Iterable[tuple[T, Given | Exception]]
    ) -> Iterator[tuple[T, Given | Exception, Image | Exception]]:
        """The answers to pictures, with the things they come with.

        Not in their order: those of equal inputs share batches. An exception in place
        of a picture is handed on, one in place of an answer says that the devices'
        memory does not suffice for the picture alone. The device has its next batches
        while one's answers are used.
        """

        def started() -> Iterator[tuple[list[Any], Callable[[], list[Any]]]]:
            for group in grouped(things, self.batch_size):
                pictures = [one for _, one in group if isinstance(one, Given)]
                if pictures:
                    yield group, self._started(pictures, self.batch_size)
                else:
                    yield group, functools.partial(_handed_on, group)

        for group, wait in answers.behind(started(), answers.AHEAD):
            for (thing, given), answer in zip(group, wait(), strict=True):
                yield thing, given, answer

    def _started(
        self, group: list[Given], batch_size: int
    ) -> Callable[[], list[Image | Exception]]:
        """A function that waits for the answers to pictures of equal inputs.

        The batch is filled up to `batch_size`, so that few sizes are compiled.
        """
        inputs = jax.tree.map(lambda *x: np.stack(x), *(g.inputs for g in group))
        whole = answers.filled_up(inputs, batch_size, len(group))
        whole = answers.filled_up(whole, self._layout.local_shares, len(whole.images))
        try:
            with answers.weights_checked():
                held = self._call(self._layout.put_inputs(whole))
            fetch = self._layout.fetched(held)
        except jax.errors.JaxRuntimeError as error:
            failed = error

            def fetch() -> Any:
                raise failed

        def wait() -> list[Image | Exception]:
            try:
                found = fetch()
            except jax.errors.JaxRuntimeError as error:
                return self._alone(group, error)
            return [
                Image(
                    jax.tree.map(lambda x, i=i: x[i], found),
                    given.matrix[:2],
                    given.image.shape[:2],
                    whole.images.shape[1:3],
                )
                for i, given in enumerate(group)
            ]

        return wait

    def _alone(
        self, group: list[Given], error: jax.errors.JaxRuntimeError
    ) -> list[Image | Exception]:
        """The answers to pictures that were too large together, one by one."""
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise error
        if len(group) == 1:
            return [error]
        return [one for given in group for one in self._started([given], 1)()]


def _handed_on(group: list[Any]) -> list[Any]:
    return [error for _, error in group]


def known(answer: Any) -> Any:
    """`answer`, unless it is an exception, which is raised."""
    if isinstance(answer, Exception):
        raise answer
    return answer


def grouped(
    things: Iterable[tuple[T, Given | Exception]], size: int
) -> Iterator[list[tuple[T, Given | Exception]]]:
    """Groups of at most `size` things of equal inputs; an exception is one by itself.

    In the order of their first ones, as far as none waits for longer than `WINDOW`
    groups and all that wait have at most `MOST_BYTES`.
    """
    waiting: dict[Any, list[Any]] = {}
    for thing, given in things:
        if isinstance(given, Exception):
            yield [(thing, given)]
            continue
        waiting.setdefault(given.shapes, []).append((thing, given))
        if len(waiting[given.shapes]) == size:
            yield waiting.pop(given.shapes)
        held = [one for group in waiting.values() for _, one in group]
        if len(held) > (WINDOW - 1) * size or _bytes(held) > MOST_BYTES:
            yield waiting.pop(next(iter(waiting)))
    yield from waiting.values()


def _bytes(held: list[Given]) -> int:
    return sum(given.image.nbytes + given.inputs.images.nbytes for given in held)


def in_order(things: Iterable[tuple[int, T]]) -> Iterator[T]:
    """Things by number, from 0: each as soon as all before it are there."""
    waiting: dict[int, T] = {}
    turn = 0
    for number, thing in things:
        waiting[number] = thing
        while turn in waiting:
            yield waiting.pop(turn)
            turn += 1
