"""Which regime of transfer suits a data set: the two questions, and their answers.

Whether there are few images a class, and whether the pictures are similar to those that
the weights have learnt from; `REGIMES` has the answer to each pair. After Yosinski et
al. (NeurIPS 2014) and Kornblith et al. (CVPR 2019): features of the last layers are the
more special the higher they are, and the more pictures there are the more of them can
be learnt anew.
"""

import pathlib
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from detjax import embedding, models, probe, similarity, tasks
from detjax.data import dataset
from detjax.errors import UserError
from detjax.similarity import Similarity
from detjax.weights import source

FEW = 50  # images a class below which training all layers forgets more than it learns
# Above both, no image looks like one of the other set.
FAR, APART = 10.0, 0.9


class Regime(NamedTuple):
    """A way of transfer."""

    title: str
    why: str
    flags: tuple[str, ...]  # of a config; {half} is half the run's steps


_FROZEN = '--config.optimizer.freeze="all but head"'
_TENTH = "--config.optimizer.rates=\"{{'backbone': 0.1}}\""

REGIMES = {  # by (few images a class, similar pictures)
    (True, True): Regime(
        "feature extraction",
        "the features suit these pictures, and there are too few to learn better ones; "
        "scripts/probe.py solves for the head in seconds, or",
        (_FROZEN,),
    ),
    (True, False): Regime(
        "feature extraction, then all at a tenth",
        "there are too few pictures to learn features, and those at the top are of "
        "other pictures: begin with the head, go on slowly, and compare with more "
        "augmentation",
        (_FROZEN, "--config.optimizer.unfreeze=\"(({half}, 'all'),)\"", _TENTH),
    ),
    (False, True): Regime(
        "fine-tuning",
        "the features are a good start, and there are enough pictures to improve all "
        "of them, pretrained layers at a tenth of the rate",
        (_TENTH,),
    ),
    (False, False): Regime(
        "fine-tuning of everything",
        "there are enough pictures to learn all layers at the full rate; begin with "
        "the weights nonetheless, which is seldom worse than from scratch, and compare",
        ("--config.optimizer.rates=None",),
    ),
}


class Found(NamedTuple):
    """What was measured."""

    images: float  # a class: of the median one
    measured: Similarity | None
    similar: bool
    by_hand: tuple[str, ...] = ()  # what was said instead of measured


def advise(
    config: ConfigDict,
    workdir: str | pathlib.Path,
    *,
    images: int | None = None,
    similar: bool | None = None,
) -> str:
    """Advice for `config`, whose train.init_from is a run with a data set of its own.

    `images` a class and whether the data are `similar` overrule what is measured.

    Raises UserError where the similarity can neither be measured nor is given.
    """
    begun = probe.begin(config, workdir)
    hand = [f"--images={images}"] if images is not None else []
    hand += (
        [f"--{'similar' if similar else 'different'}"] if similar is not None else []
    )
    counted = images_a_class(begun) if images is None else float(images)
    measured = None if similar is not None else measure(begun, pathlib.Path(workdir))
    alike = is_similar(measured) if measured else bool(similar)
    found = Found(counted, measured, alike, tuple(hand))
    init_from = begun.settings["train"]["init_from"]
    return text(found, str(init_from), begun.settings["train"]["steps"])


def images_a_class(begun: probe.Begun) -> float:
    """The median number of training images in which a class is."""
    task = tasks.TASKS[begun.model.spec.task]
    counts = np.zeros(len(begun.data.info.classes), np.int64)
    for record in begun.data.learnt():
        labels, _ = task.regions(record)
        counts[np.unique(labels)] += 1
    return float(np.median(counts))


def measure(begun: probe.Begun, workdir: pathlib.Path) -> Similarity:
    """How alike the data sets of the source and of the config are."""
    init_from = begun.settings["train"]["init_from"]
    ours = probe.embedded(begun, workdir).features
    theirs = of_source(begun, init_from, workdir)
    return similarity.compare(ours[:, 0], theirs.features[:, 0])


def of_source(
    begun: probe.Begun, init_from: Any, workdir: pathlib.Path
) -> embedding.Embedded:
    """The features, by the same network and at the same size, of the source's data.

    Raises UserError if its data set is not known or not here.
    """
    held = source.config(init_from)
    data = dict(held.get("data") or {})
    if "name" not in data:
        raise UserError(
            f"{init_from} does not say what pictures it has learnt from, so that these "
            "cannot be compared with yours: look at both, and say --similar or "
            "--different"
        )
    ours = begun.settings["data"]
    task = tasks.TASKS[models.task_of(held["model"]["name"])]
    seen: dict[str, Any] = {
        key: ours[key] for key in ("size", "batch_size", "letterbox") if key in ours
    }
    kept = {k: data[k] for k in ("name", "data_dir", "train_split") if k in data}
    theirs = dataset.make(
        task, **kept, **seen, eval_split=kept.get("train_split", "train")
    )
    return probe.features_of(begun, theirs, {**kept, **seen}, workdir)


def is_similar(measured: Similarity) -> bool:
    """Whether two data sets are alike enough for the same features."""
    return not (measured.ratio > FAR and measured.told_apart > APART)


def text(found: Found, init_from: str, steps: int) -> str:
    """What was measured, in words, and the keys of the config."""
    few = found.images < FEW
    lines = [f"images a class: {found.images:,.0f} (few: under {FEW})"]
    if found.measured:
        held = found.measured
        lines += [
            f"compared: {held.images:,} images of each data set",
            f"distance of the two data sets: {held.ratio:,.1f} times that of two "
            "halves of one of them (Frechet distance of the features under "
            f"{init_from})",
            "an image's nearest neighbours tell its data set in "
            f"{held.told_apart:.0%} of cases (50% is chance)",
            f"so the pictures are {'similar' if found.similar else 'different'} "
            f"(different: above {FAR:.0f} times and {APART:.0%})",
        ]
    if found.by_hand:
        lines.append(f"said, not measured: {' '.join(found.by_hand)}")
    regime = REGIMES[few, found.similar]
    lines += ["", f"{regime.title}: {regime.why}", ""]
    lines.append(f"--config.train.init_from={init_from}")
    half = max(steps // 2, 1)
    return "\n".join([*lines, *(flag.format(half=half) for flag in regime.flags)])
