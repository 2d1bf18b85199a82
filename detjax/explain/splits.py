"""The pictures of a trained model's data set, as a network sees them, with their class.

b images
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from detjax.data import dataset
from detjax.errors import UserError
from detjax.ops import masks
from detjax.predict import TrainedModel
from detjax.types import Batch, Inputs, Label, Objects


class Shown(NamedTuple):
    """A batch of pictures."""

    inputs: Inputs
    labels: np.ndarray  # [b] int32: the class; -1 where there is none, or several
    truth: np.ndarray | None  # [b h w] bool: where it is, if the data set says so


def batches(
    trained: TrainedModel,
    split: str = "val",
    limit: int = 0,
    batch_size: int | None = None,
) -> Iterator[Batch]:
    """The batches of `split` of the model's data set, of at most `limit` if not 0.

    They are as large as the run's, if `batch_size` is None. Rows beyond the limit are
    not valid. Raises UserError where the data set is not where the run had it.
    """
    described = {**trained.config["data"], "prepare": None, "eval_split": split}
    size = batch_size or described.get("eval_batch_size") or described["batch_size"]
    described["eval_batch_size"] = min(size, limit) if limit else size
    data = dataset.make(trained.task, **described)
    loader = iter(data.validation())
    try:
        count = 0
        for batch in loader:
            real = np.asarray(batch.inputs.view.valid)  # type: ignore[union-attr]
            if limit:
                real = real & (np.cumsum(real) <= limit - count)
            count += int(real.sum())
            view = batch.inputs.view.replace(valid=real)  # type: ignore[union-attr]
            yield batch.replace(inputs=batch.inputs.replace(view=view))  # type: ignore[attr-defined]
            if limit and count >= limit:
                return
    finally:
        if hasattr(loader, "close"):
            loader.close()


def opened(
    trained: TrainedModel,
    split: str = "val",
    limit: int = 0,
    batch_size: int | None = None,
) -> Iterator[Shown]:
    """The pictures of `batches` with their classes.

    Raises UserError where images have no class of their own, as of detectors.
    """
    for batch in batches(trained, split, limit, batch_size):
        shown = _shown(batch)
        real = np.asarray(batch.inputs.view.valid)  # type: ignore[union-attr]
        labels = np.where(real, shown.labels, -1)
        yield shown._replace(
            inputs=jax.tree.map(np.asarray, shown.inputs), labels=labels
        )


def _shown(batch: Batch) -> Shown:
    target: Any = batch.target
    if isinstance(target, Label):
        weights = np.asarray(target.weights)
        alone = (weights.sum(axis=1) == 1) & (weights.max(axis=1) == 1)
        return Shown(batch.inputs, np.where(alone, weights.argmax(axis=1), -1), None)
    if isinstance(target, Objects) and target.boxes.shape[1] == 1:
        valid = np.asarray(target.valid)
        labels = np.where(valid[:, 0], np.asarray(target.labels)[:, 0], -1)
        size = batch.inputs.images.shape[1:3]
        where = masks.of_boxes(target.boxes, valid, size)
        return Shown(batch.inputs, labels, np.asarray(where))
    raise UserError(
        "the pictures of the data set have no class of their own; take a run of a "
        "classifier, or of one that localises"
    )


def balanced(batches: Iterator[Shown], label: int, limit: int = 0) -> Iterator[Shown]:
    """The batches without labels (-1) beyond `limit` of a class, and of the others.

    0 keeps all. Ends once both are complete, and leaves out batches without any.
    """
    left = np.array([limit, limit] if limit else [np.iinfo(int).max] * 2)
    for shown in batches:
        labels = np.array(shown.labels)
        kinds = (labels == label, (labels != label) & (labels >= 0))
        for i, kind in enumerate(kinds):
            labels[kind & (np.cumsum(kind) > left[i])] = -1
            left[i] -= min(left[i], kind.sum())
        if (labels >= 0).any():
            yield shown._replace(labels=labels)
        if not left.any():
            return


def of_class(batches: Iterator[Shown], label: int) -> Iterator[Inputs]:
    """The pictures of a class alone, in batches as large as those given.

    The last of each size is filled up with pictures that are not valid. No more than a
    batch of each is held.
    """
    held: dict[Any, Any] = {}

    def rows(inputs: Any, chosen: Any) -> Any:
        return jax.tree.map(lambda x: x[chosen], inputs)

    for shown in batches:
        chosen = np.flatnonzero(shown.labels == label)
        if not len(chosen):
            continue
        size, some = shown.inputs.images.shape, rows(shown.inputs, chosen)
        if size in held:
            some = jax.tree.map(lambda *x: np.concatenate(x), held.pop(size), some)
        while len(some.images) >= size[0]:
            yield rows(some, slice(size[0]))
            some = rows(some, slice(size[0], None))
        if len(some.images):
            held[size] = some
    for size, some in held.items():
        count = len(some.images)
        filled = rows(some, np.arange(size[0]) % count)
        valid = np.arange(size[0]) < count
        yield filled.replace(view=filled.view.replace(valid=valid))
