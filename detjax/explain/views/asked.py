"""What views explain of a picture, and the programs that do it.

The question is put to the answers to the picture as it is. What it was about then, a
class, objects or a region, is handed to programs beside the picture: also of a changed
picture the same thing is explained, and no picture compiles anew.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from detjax.errors import UserError
from detjax.explain import cam, influence, layers
from detjax.parameters import HEAD
from detjax.predict import TrainedModel
from detjax.types import Array, Asked, Inputs, Question

# A quantity of a layer and its channel: unit:LAYER:CHANNEL
UNIT = "unit"
# The parameters of quantities that are whole numbers: which part of a thing is meant.
PARTS = ("side", "point")
# (whose quantities, params, state, inputs, which) -> what a view draws
Build = Callable[..., Any]


class Asker:
    """Asks a model about pictures; what it compiles serves all pictures of a size."""

    def __init__(
        self,
        trained: TrainedModel,
        quantity: str = "",
        labels: Sequence[str] = (),
        most: int = 1,
        min_score: float = 0.0,
    ):
        """See `question` for what is asked.

        quantity: its name, as "score", or with a number of its part, as "keypoint:3";
            the task's usual one if empty. "unit:LAYER:CHANNEL" is the mean of a
            channel over its places: YOLACT's fourth prototype is unit:proto_net.10:3.
        labels: names of classes, of the answers' own if there are none.

        Raises UserError for names that are not known.
        """
        self.trained = trained
        self.weights = trained.params, trained.state
        self.predict = trained.model.predict
        self.unit = _unit(quantity)
        if self.unit:
            self.predict = layers.seen(self.predict, [self.unit[0]])
            self.question = None
        else:
            self.question = question(trained, quantity, labels, most, min_score)
        self._answer = jax.jit(self.predict)
        self._programs: dict[Any, Callable[..., Any]] = {}
        self._shapes: dict[Any, Any] = {}

    def __call__(self, inputs: Inputs) -> Asked:
        """What is asked of a batch of one."""
        if self.unit:
            name, channel = self.unit
            width = self.find(inputs, name).shape[-1]
            if channel >= width:
                raise UserError(
                    f"the layer {name!r} has {width} channels, and {channel} is none "
                    "of them; channels count from 0"
                )
            return Asked([f"{name} {channel}"], np.int32(channel), of_unit(name))
        answers = jax.device_get(self._answer(*self.weights, inputs))
        return self.trained.task.ask(answers, inputs, self.question)  # type: ignore[misc]

    def program(self, key: Any, build: Build) -> Callable[..., Any]:
        """`build`, jitted once for each `key`; its first argument is a quantity.

        It is called with the quantity of an `Asked`, and so on; see `run`.
        """
        if key not in self._programs:
            self._programs[key] = jax.jit(build, static_argnums=0)
        return self._programs[key]

    def run(self, key: Any, build: Build, asked: Asked, inputs: Inputs) -> Any:
        """What the program of `key` computes of a picture."""
        call = self.program(key, build)
        return call(asked.quantity, *self.weights, inputs, asked.which)

    def shapes(self, inputs: Inputs) -> dict[str, Any]:
        """The layers of the model, as `layers.shapes` has them, traced once a size."""
        size = inputs.images.shape
        if size not in self._shapes:
            known = layers.shapes(self.trained.model.predict, *self.weights, inputs)
            self._shapes[size] = known
        return self._shapes[size]

    def find(self, inputs: Inputs, name: str) -> Any:
        """What the layer called `name` returns, as `layers.find` has it."""
        known = self.shapes(inputs)
        if name in known:
            return known[name]
        return layers.find(self.trained.model.predict, *self.weights, inputs, name)

    def once(self, inputs: Inputs, find: Callable[[], Any]) -> Any:
        """What `find` returns for pictures of that size, which is looked for once."""
        key = ("once", inputs.images.shape)
        if key not in self._shapes:
            self._shapes[key] = find()
        return self._shapes[key]

    def usual(self, inputs: Inputs, coarsest: bool = True) -> list[str]:
        """The layers that are looked at where none is named: `cam.usual`."""
        head = self.trained.model.spec.groups.get(HEAD)
        size = inputs.images.shape[1:3]
        return cam.usual(self.shapes(inputs), size, head, coarsest)


def question(
    trained: TrainedModel,
    quantity: str = "",
    labels: Sequence[str] = (),
    most: int = 1,
    min_score: float = 0.0,
) -> Question:
    """The question of a quantity of the model's task; see `Asker`.

    Raises UserError for a quantity, a part of it, or a class that there is not.
    """
    task = trained.task
    if not task.quantities or task.ask is None:
        raise UserError(f"nothing of the task {task.name!r} can be explained")
    name, _, number = (quantity or next(iter(task.quantities))).partition(":")
    if name not in task.quantities:
        raise UserError(
            f"the task {task.name} has no quantity {name!r}; choose one of "
            f"{', '.join(task.quantities)}, or {UNIT}:LAYER:CHANNEL"
        )
    known = inspect.signature(_inner(task.quantities[name])).parameters
    if number and not (number.isdecimal() and {*PARTS} & {*known}):
        which = "is no whole number" if {*PARTS} & {*known} else "it has no parts"
        raise UserError(f"quantity={quantity!r}: {number!r} {which}; write {name}")
    if number and "side" in known and int(number) > 3:
        raise UserError(f"quantity={quantity!r}: sides of boxes are 0 to 3")
    if labels and name.rpartition("/")[2] == "value":
        raise UserError(f"the quantity {name!r} is of no class; leave the class out")
    return Question(
        name,
        int(number) if number else None,
        tuple(place(trained, label) for label in labels),
        trained.classes,
        most,
        min_score,
    )


def _inner(quantity: Any) -> Callable[..., Any]:
    """The function of a quantity, of several tasks that of the one it is of."""
    return getattr(quantity, "quantity", quantity)


def _unit(quantity: str) -> tuple[str, int] | None:
    """The layer and the channel of unit:LAYER:CHANNEL; None of other quantities."""
    kind, _, rest = quantity.partition(":")
    if kind != UNIT:
        return None
    name, _, channel = rest.rpartition(":")
    if not name or not channel.isdecimal():
        raise UserError(
            f"quantity={quantity!r} names no layer and channel; write "
            f"{UNIT}:LAYER:CHANNEL, with a name that the view activations lists"
        )
    return name, int(channel)


@functools.lru_cache
def of_unit(name: str) -> Callable[..., Array]:
    """(answers of `layers.seen`, channel) -> [b 1]: its mean over places."""

    def call(answers: tuple[Any, dict[str, Array]], channel: Array) -> Array:
        held = jnp.take(answers[1][name].astype(jnp.float32), channel, axis=-1)
        return held.reshape(len(held), -1).mean(axis=1, keepdims=True)

    return call


def place(trained: TrainedModel, label: str) -> int:
    """The index of the class called `label`. Raises UserError if there is none."""
    if label not in trained.classes:
        raise UserError(
            f"no class is called {label!r}; choose one of "
            f"{', '.join(trained.classes[:20])}{', ...' * (len(trained.classes) > 20)}"
        )
    return trained.classes.index(label)


def difference(of: Callable[..., Array], against: bool) -> Callable[..., Array]:
    """(answers, which) -> [b 1]: the first quantity, less the second if `against`."""

    def call(answers: Any, which: Any) -> Array:
        if against:
            return influence.difference(lambda x: of(x, which))(answers)
        return of(answers, which)[:, :1]

    return call


def scaled(found: Any, part: float = 99.5) -> np.ndarray:
    """A map between -1 and 1: over the magnitude that `part` in 100 places keep."""
    found = np.asarray(found, np.float32)
    top = np.percentile(np.abs(found), part)
    return np.clip(found / (top if top > 0 else 1.0), -1.0, 1.0)
