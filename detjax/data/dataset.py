"""The `data` section of a config: a data set and its two streams."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from detjax.data import builder, loader
from detjax.data.prepare import prepare as prepare_files
from detjax.data.records import Record


class Data(NamedTuple):
    """What training and evaluation read."""

    info: builder.Info
    train: Iterable  # endless batches; its iterator has get_state and set_state
    evaluation: Callable[[], Iterable]  # every evaluation image once
    truth: Sequence[Record]  # the records of the evaluation split


def make(
    *,
    name: str,
    size: tuple[int, int],
    batch_size: int,
    data_dir: str = "datasets",
    prepare: Mapping[str, Any] | None = None,
    train_split: str = "train",
    eval_split: str = "val",
    eval_batch_size: int | None = None,
    max_objects: int = 100,
    mask_stride: int | None = 4,
    letterbox: bool = False,
    augment: Mapping[str, Any] | None = None,
    threads: int = 2,
    workers: int = 0,
    seed: int = 0,
) -> Data:
    """The data set `name` below `data_dir`, made from `prepare` if it is not there.

    `prepare` holds the keywords of `data.prepare.prepare`. `batch_size` counts the
    images of all hosts; see `loader.Prepare` for what is done to an image.
    """
    if prepare is not None:
        prepare_files(name, data_dir, **prepare)
    h, w = size
    steps = loader.Prepare(
        size=(h, w),
        max_objects=max_objects,
        mask_stride=mask_stride,
        letterbox=letterbox,
        augment=augment or {},
    )
    truth = builder.source(name, data_dir, eval_split)
    return Data(
        info=builder.info(name, data_dir),
        train=loader.train_loader(
            builder.source(name, data_dir, train_split),
            steps,
            batch_size=batch_size,
            seed=seed,
            threads=threads,
            workers=workers,
        ),
        evaluation=functools.partial(
            loader.eval_loader,
            truth,
            steps,
            batch_size=eval_batch_size or batch_size,
            threads=threads,
        ),
        truth=truth,
    )
