"""The `data` section of a config: a data set and its two streams."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from detjax.data import builder, loader, plan
from detjax.data.prepare import prepare as prepare_files
from detjax.data.records import Record
from detjax.errors import UserError
from detjax.settings import Count, Location, Seed, Whole
from detjax.types import Task


class Data(NamedTuple):
    """The inputs of training and evaluation."""

    info: builder.Info
    size: tuple[int, int]  # (h, w) of the inputs, of the first where there are several
    train: Iterable  # endless batches; its iterator has get_state and set_state
    evaluation: Callable[[], Iterable]  # every evaluation image once
    once: Callable[[], Iterable]  # every training image once, as evaluation prepares it
    truth: Sequence[Record]  # the records of the evaluation split, without images
    pictures: Sequence[Record]  # the same with their images
    image_ids: Sequence[int | str]  # theirs, without reading them
    skip: bool  # whether records that cannot be read are passed over


def make(
    task: Task,
    *,
    name: str,
    batch_size: Count,
    size: tuple[Count, Count] | None = None,
    buckets: tuple[tuple[Count, Count], ...] | None = None,
    short_side: Count | tuple[Count, ...] | None = None,
    long_side: Count | None = None,
    letterbox: bool = False,
    data_dir: Location = "datasets",
    prepare: Mapping[str, Any] | None = None,
    train_split: str = "train",
    eval_split: str = "val",
    eval_batch_size: Count | None = None,
    max_proposals: Count | None = None,
    augment: Mapping[str, Any] | None = None,
    threads: Whole | None = None,
    workers: Whole = 0,
    seed: Seed = 0,
    on_error: Literal["fail", "skip"] = "fail",
    max_skipped: Whole = 100,
    **targets: Any,
) -> Data:
    """The data set `name` in `data_dir`, created by `prepare` if it is missing.

    `prepare` holds the keywords of `data.prepare.prepare`. `batch_size` counts the
    images of all hosts. Images are resized to one `size`, or to one of several
    `buckets`; see `plan.InputSizes` for those and for `short_side` and `long_side`,
    `loader.train_loader` for threads, workers and records that cannot be read, and
    `loader.Prepare` for what is done to an image. `max_proposals` says how many of the
    data set's proposals an image has: all if None. `targets` are the keywords of
    `task.targets`: how the truth is padded.

    Raises UserError for inconsistent settings.
    """
    sizes = plan.input_sizes(
        size=size,
        buckets=buckets,
        short_side=short_side,
        long_side=long_side,
        letterbox=letterbox,
    )
    if prepare is not None:
        prepare_files(name, data_dir, task, **prepare)
    info = builder.info(name, data_dir)
    if info.task != task.name:
        raise UserError(
            f"the data set {name!r} is made for {info.task}, the model answers "
            f"{task.name}; choose another data.name or model.name"
        )
    steps = loader.Prepare(
        size=sizes.buckets[0],
        targets=task.targets(info, **targets),
        letterbox=sizes.letterbox,
        augment=augment or {},
        max_proposals=info.max_proposals if max_proposals is None else max_proposals,
    )

    def images(split: str):
        return (
            builder.image_sizes(name, data_dir, split, task)
            if sizes.need_images
            else None
        )

    def once(split: str, source: Sequence[Record], known: Any, **share: int):
        return loader.eval_loader(
            source,
            steps,
            batch_size=eval_batch_size or batch_size,
            sizes=sizes,
            images=known,
            threads=threads,
            on_error=on_error,
            split=split,
            **share,
        )

    def split(part: str):
        return builder.source(name, data_dir, part, task, on_error), images(part)

    learnt, evaluated = split(train_split), split(eval_split)
    return Data(
        info=info,
        size=sizes.buckets[0],
        train=loader.train_loader(
            learnt[0],
            steps,
            batch_size=batch_size,
            seed=seed,
            sizes=sizes,
            images=learnt[1],
            threads=threads,
            workers=workers,
            on_error=on_error,
            max_skipped=max_skipped,
            split=train_split,
        ),
        evaluation=functools.partial(once, eval_split, *evaluated),
        # A `solve` needs all images in one process.
        once=functools.partial(once, train_split, *learnt, process=0, processes=1),
        truth=builder.source(name, data_dir, eval_split, task, on_error, images=False),
        pictures=evaluated[0],
        image_ids=builder.listing(name, data_dir, eval_split, task).ids,
        skip=on_error == "skip",
    )
