"""The `data` section of a config: a data set and its two streams."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from detjax.data import builder, loader, plan
from detjax.data.prepare import prepare as prepare_files
from detjax.data.records import Record
from detjax.errors import UserError


class Data(NamedTuple):
    """What training and evaluation read."""

    info: builder.Info
    train: Iterable  # endless batches; its iterator has get_state and set_state
    evaluation: Callable[[], Iterable]  # every evaluation image once
    once: Callable[[], Iterable]  # every training image once, as evaluation prepares it
    truth: Sequence[Record]  # the records of the evaluation split, without images
    pictures: Sequence[Record]  # the same with their images
    image_ids: Sequence[int | str]  # theirs, without reading them
    skip: bool  # whether records that cannot be read are passed over


def make(
    *,
    name: str,
    batch_size: int,
    size: Sequence[int] | None = None,
    buckets: Sequence[Sequence[int]] | None = None,
    short_side: int | Sequence[int] | None = None,
    long_side: int | None = None,
    letterbox: bool = False,
    data_dir: str = "datasets",
    prepare: Mapping[str, Any] | None = None,
    train_split: str = "train",
    eval_split: str = "val",
    eval_batch_size: int | None = None,
    max_objects: int = 100,
    mask_stride: int | None = 4,
    mask_size: int | None = None,
    min_size: float = 1.0,
    keypoints: bool = False,
    max_proposals: int | None = None,
    augment: Mapping[str, Any] | None = None,
    threads: int | None = None,
    workers: int = 0,
    seed: int = 0,
    on_error: str = "fail",
    max_skipped: int = 100,
) -> Data:
    """The data set `name` below `data_dir`, made from `prepare` if it is not there.

    `prepare` holds the keywords of `data.prepare.prepare`. `batch_size` counts the
    images of all hosts. Images are brought to one `size`, or to one of several
    `buckets`; see `plan.Sizes` for those and for `short_side` and `long_side`,
    `loader.train_loader` for threads, workers and records that cannot be read, and
    `loader.Prepare` for what is done to an image. `keypoints` says whether objects have
    theirs, `max_proposals` how many of the data set's an image has: all if None.

    Raises UserError for what does not go together.
    """
    sizes = plan.sizes(
        size=size,
        buckets=buckets,
        short_side=short_side,
        long_side=long_side,
        letterbox=letterbox,
    )
    if prepare is not None:
        prepare_files(name, data_dir, **prepare)
    info = builder.info(name, data_dir)
    if keypoints and not info.keypoints:
        raise UserError(
            f"the data set {name!r} has no keypoints; set data.keypoints=False"
        )
    steps = loader.Prepare(
        size=sizes.buckets[0],
        max_objects=max_objects,
        mask_stride=mask_stride,
        mask_size=mask_size,
        min_size=min_size,
        letterbox=sizes.letterbox,
        augment=augment or {},
        keypoints=info.keypoints if keypoints else (),
        max_proposals=info.max_proposals if max_proposals is None else max_proposals,
    )

    def images(split: str):
        return builder.sizes(name, data_dir, split) if sizes.need_images else None

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

    def split(name_of: str):
        return builder.source(name, data_dir, name_of, on_error), images(name_of)

    learnt, judged = split(train_split), split(eval_split)
    return Data(
        info=info,
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
        evaluation=functools.partial(once, eval_split, *judged),
        # What is solved needs all images in one place.
        once=functools.partial(once, train_split, *learnt, process=0, processes=1),
        truth=builder.source(name, data_dir, eval_split, on_error, images=False),
        pictures=judged[0],
        image_ids=builder.listing(name, data_dir, eval_split).ids,
        skip=on_error == "skip",
    )
