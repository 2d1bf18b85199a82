"""What views explain of a picture: a quantity of the model's task, of some classes."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from detjax.errors import UserError
from detjax.predict import TrainedModel
from detjax.types import Array

# The parameter of quantities that are of classes.
LABELS = "labels"


def quantity(
    trained: TrainedModel, name: str = "", labels: Sequence[str] = ()
) -> Callable[[Any], Array]:
    """The quantity called `name` of the model's task, the usual one if it is empty.

    Of the classes `labels`, by name, or of what the model answers. Raises UserError for
    names that are not known.
    """
    known = trained.task.quantities
    if not known:
        raise UserError(f"nothing of the task {trained.task.name!r} can be explained")
    name = name or next(iter(known))
    if name not in known:
        raise UserError(
            f"the task {trained.task.name!r} has no quantity {name!r}; choose one of "
            f"{', '.join(known)}"
        )
    call = known[name]
    if not labels:
        return call
    if LABELS not in inspect.signature(call).parameters:
        raise UserError(f"the quantity {name!r} is of no class; leave the class out")
    places = np.array([[place(trained, label) for label in labels]])

    def of_classes(answers: Any) -> Array:
        count = _images(answers)
        return call(answers, labels=jnp.broadcast_to(places, (count, len(labels))))

    return of_classes


def place(trained: TrainedModel, label: str) -> int:
    """The index of the class called `label`. Raises UserError if there is none."""
    if label not in trained.classes:
        raise UserError(
            f"no class is called {label!r}; choose one of "
            f"{', '.join(trained.classes[:20])}{', ...' * (len(trained.classes) > 20)}"
        )
    return trained.classes.index(label)


def _images(answers: Any) -> int:
    """The number of images that were answered."""
    return int(jax.tree.leaves(answers)[0].shape[0])


def scaled(found: Any, part: float = 99.5) -> np.ndarray:
    """A map between -1 and 1: over the magnitude that `part` in 100 places keep."""
    found = np.asarray(found, np.float32)
    top = np.percentile(np.abs(found), part)
    return np.clip(found / (top if top > 0 else 1.0), -1.0, 1.0)
