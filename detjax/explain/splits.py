"""The pictures of a trained model's data set, as a network sees them, with their class.

b images
"""

import itertools
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
    trained: TrainedModel, split: str = "val", limit: int = 0, batch_size: int = 32
) -> Iterator[Batch]:
    """The batches of `split` of the model's data set, of at most `limit` if not 0.

    Rows beyond it are not valid. Raises UserError where the data set is not where the
    run had it.
    """
    described = {**trained.config["data"], "prepare": None, "eval_split": split}
    described["eval_batch_size"] = min(batch_size, limit) if limit else batch_size
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
    trained: TrainedModel, split: str = "val", limit: int = 0, batch_size: int = 32
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


def first(batches: Iterator[Shown], count: int = 1) -> list[Shown]:
    """The first `count` batches."""
    return [*itertools.islice(batches, count)]
