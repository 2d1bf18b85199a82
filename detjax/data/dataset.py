"""The `data` section of a config: a data set and its two streams."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

from detjax import settings
from detjax.data import ahead, blends, builder, loader, mosaic, sizing
from detjax.data import repeats as repeating
from detjax.data.blends import Blends
from detjax.data.mosaic import Mosaic
from detjax.data.prepare import prepare as prepare_files
from detjax.data.records import Record
from detjax.errors import UserError
from detjax.settings import Count, Fraction, Location, NotEmpty, Range, Seed, Whole
from detjax.types import Label, Task

Level = Annotated[int, Range(0, 255)]


class Data(NamedTuple):
    """The inputs of training and evaluation."""

    info: builder.Info
    size: tuple[int, int]  # (h, w) of the inputs, of the first where there are several
    train: Iterable  # endless batches; its iterator has get_state and set_state
    evaluation: Callable[[], Iterable]  # every evaluation image once
    validation: Callable[[], Iterable]  # the same with the targets of training
    once: Callable[[], Iterable]  # every training image once, as evaluation prepares it
    truth: Sequence[Record]  # the records of the evaluation split, without images
    pictures: Sequence[Record]  # the same with their images
    image_ids: Sequence[int | str]  # theirs, without reading them
    skip: bool  # whether records that cannot be read are passed over
    sizes: sizing.InputSizes  # of the inputs, in evaluation
    learnt: Callable[[], Sequence[Record]]  # of the training split, without images


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
    fill: tuple[Level, Level, Level] = sizing.FILL,
    sizes: Annotated[tuple[tuple[Count, Count], ...], NotEmpty()] | None = None,
    size_every: Count = 10,
    data_dir: Location = "datasets",
    prepare: Mapping[str, Any] | None = None,
    train_split: str = "train",
    eval_split: str = "val",
    eval_batch_size: Count | None = None,
    max_proposals: Count | None = None,
    augment: Mapping[str, Any] | None = None,
    repeat_threshold: Fraction | None = None,
    reduced_decoding: bool = True,
    threads: Whole | None = None,
    workers: Whole | None = None,
    seed: Seed = 0,
    on_error: Literal["fail", "skip"] = "fail",
    max_skipped: Whole = 100,
    **targets: Any,
) -> Data:
    """The data set `name` in `data_dir`, created by `prepare` if it is missing.

    name: of the data set.
    batch_size: images of a training batch, of all hosts together.
    size: (h, w) that images are resized to; or else `buckets`.
    buckets: several (h, w); an image goes to the one that suits it, see README's sizes.
    short_side: with buckets, the length that images' shorter sides get, or several of
        which training draws one for each image.
    long_side: with `short_side`, the most that their longer sides get.
    letterbox: keep the shape of images and pad them, instead of stretching.
    fill: RGB, 0 to 255, of what pads images: ImageNet's mean; darknet's is 127 thrice.
    sizes: with `size`, which evaluation has, several (h, w) of training: one of them is
        drawn for so many batches (multi-scale training of YOLOv2); each is compiled.
    size_every: batches that have one of `sizes`.
    data_dir: the folder of data sets.
    prepare: how the data set is made if it is missing, as scripts/make_dataset.py does.
    train_split, eval_split: the splits that are learnt and evaluated.
    eval_batch_size: of evaluations; `batch_size` if None.
    max_proposals: the first proposals of an image that are used; all if None.
    augment: random changes of training images.
    repeat_threshold: the share of images below which a class is rare, and its images
        are shown more often (LVIS's repeat factors); None is none.
    reduced_decoding: pictures that are seen at half their size or less are decoded 2,
        4 or 8 times smaller, JPEGs in less time; never smaller than they are seen.
    threads: that prepare images; one a core if None.
    workers: processes that prepare images; 0 is threads. None is 0 on up to four cores,
        else one a core but one, 32 at most. An evaluation of fewer than 1,000 images is
        always prepared by threads.
    seed: of the order of images and of their changes.
    on_error: "fail" stops at a record that cannot be read, "skip" takes the next one.
    max_skipped: records that may be skipped before the run stops.

    `targets` are the keywords of `task.targets`: how the truth is padded. See
    `sizing.InputSizes` for sizes, `loader.Prepare` for what is done to an image.

    Raises UserError for inconsistent settings.
    """
    fitted = sizing.input_sizes(
        size=size,
        buckets=buckets,
        short_side=short_side,
        long_side=long_side,
        letterbox=letterbox,
        fill=fill,
    )
    learning = sizing.changing(fitted, sizes, size_every)
    if prepare is not None:
        prepare_files(name, data_dir, task, **prepare)
    info = builder.info(name, data_dir)
    if info.task != task.stored:
        raise UserError(
            f"the data set {name!r} is made for {info.task}, the model answers "
            f"{task.name}; choose another data.name or model.name"
        )
    if isinstance(targets.get("class_weights"), str):
        kind = targets["class_weights"]
        targets["class_weights"] = _weights(kind, info, data_dir, train_split, task)
    augment, several = divided(augment or {}, task)
    steps = loader.Prepare(
        size=fitted.buckets[0],
        targets=task.targets(info, **targets),
        letterbox=fitted.letterbox,
        augment=augment,
        several=several,
        max_proposals=info.max_proposals if max_proposals is None else max_proposals,
        reduced=reduced_decoding,
    )

    def images(split: str):
        return (
            builder.image_sizes(name, data_dir, split, task)
            if fitted.need_images
            else None
        )

    def once(split: str, source: Sequence[Record], known: Any, **how: Any):
        return loader.eval_loader(
            source,
            steps,
            batch_size=eval_batch_size or batch_size,
            sizes=fitted,
            images=known,
            threads=threads,
            workers=None if len(source) < ahead.FEW else workers,
            on_error=on_error,
            split=split,
            **how,
        )

    def split(part: str):
        return builder.source(name, data_dir, part, task, on_error), images(part)

    repeats = None
    if repeat_threshold is not None:
        classes = builder.image_classes(name, data_dir, train_split, task)
        repeats = repeating.factors(classes, repeat_threshold)
    learnt, evaluated = split(train_split), split(eval_split)
    return Data(
        info=info,
        size=fitted.buckets[0],
        train=loader.train_loader(
            learnt[0],
            steps,
            batch_size=batch_size,
            seed=seed,
            sizes=learning,
            images=learnt[1],
            repeats=repeats,
            threads=threads,
            workers=workers,
            on_error=on_error,
            max_skipped=max_skipped,
            split=train_split,
        ),
        evaluation=functools.partial(once, eval_split, *evaluated),
        validation=functools.partial(once, eval_split, *evaluated, learnt=True),
        # A `solve` needs all images in one process.
        once=functools.partial(once, train_split, *learnt, process=0, processes=1),
        truth=builder.source(name, data_dir, eval_split, task, on_error, images=False),
        pictures=evaluated[0],
        image_ids=builder.listing(name, data_dir, eval_split, task).ids,
        skip=on_error == "skip",
        sizes=fitted,
        learnt=functools.partial(
            builder.source, name, data_dir, train_split, task, on_error, images=False
        ),
    )


def _weights(
    kind: str, info: builder.Info, data_dir: Location, split: str, task: Task
) -> tuple[float, ...]:
    """The weights of classes by a rule: "balanced" or, of pixels, "median_frequency".

    Raises UserError where a data set does not have what the rule counts.
    """
    # Of a part of a split the pixels of the whole.
    pixels = info.pixels.get(split.partition("[")[0])
    if kind == "median_frequency" and pixels is not None:
        return repeating.median_frequency(pixels)
    if kind == "balanced" and pixels is not None:
        return repeating.equal(pixels[0])
    if kind == "balanced":
        classes = builder.image_classes(info.name, data_dir, split, task)
        return repeating.balanced(classes, len(info.classes))
    raise UserError(
        f"data.class_weights={kind!r}: {info.name!r} does not say how many "
        "pixels its classes have; take 'balanced', or give a number for each class"
    )


def divided(
    given: Mapping[str, Any], task: Task
) -> tuple[dict[str, Any], Mosaic | Blends | None]:
    """What of `augment` changes one picture, and what puts several into one input.

    Raises UserError for blends of a task that does not label whole pictures, or with
    mosaics.
    """
    rest = dict(given)
    makers = mosaic.mosaic, blends.blends
    made = [
        maker(**{k: rest.pop(k) for k in settings.keywords(maker) if k in rest})
        for maker in makers
    ]
    if made[1] is not None:
        blends.check(task.name, task.target is Label)
    if None not in made:
        raise UserError(
            "data.augment has mosaic and mixup or cutmix; set one of them to 0"
        )
    return rest, made[0] or made[1]
