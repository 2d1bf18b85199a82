"""The report on priors (anchors) that fit a data set, and its plot."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from detjax import cli, models, priors
from detjax.data import sizing
from detjax.data.records import Record
from detjax.errors import UserError
from detjax.ops import fitting
from detjax.plots import anchors as plot
from detjax.plots import style
from detjax.types import Task

CELL = 32  # pixels of the input, of YOLOv2's map


def report(
    settings: Mapping[str, Any] | None,
    records: Sequence[Record],
    task: Task,
    sizes: sizing.InputSizes,
    *,
    most: int,
    objects: int,
    seed: int,
    out: pathlib.Path,
    min_size: float = 1.0,
) -> str:
    """How well the priors of the model of `settings` fit, and which fit better.

    Clusters of 1 to `most` shapes, of about `objects` objects, and those of 5, 6 and 9
    as darknet's files have anchors. Draws anchors.png into
    `out`. Without a model it is the clusters alone. Raises UserError where there are
    no objects with boxes, or no such model.
    """
    model = models.make(**settings) if settings is not None else None
    if task.name != "detection" and model is None:
        raise UserError(f"the data set is made for {task.name}: it has no boxes to fit")
    if model is not None and model.priors is None:
        return f"the model {settings['name']!r} has no priors (anchors): nothing to fit"
    sample = priors.sample(
        records,
        task,
        sizes,
        objects=objects,
        most_records=len(records),
        min_size=min_size,
        seed=seed,
    )
    shapes = sample.shapes
    if not len(shapes):
        raise UserError(
            f"none of {sample.records} records has an object of {min_size} pixels of "
            "the input or more; check data.size and data.min_size"
        )
    said = [
        f"{len(shapes)} objects of {sample.records} of {len(records)} records, in "
        f"pixels of the input: {spread(shapes)}"
    ]
    clusters = fitting.kmeans(shapes, min(most, len(shapes)), seed)
    means = [fitting.mean_best_iou(shapes, centres) for centres in clusters]
    said += ["", " k  mean best IoU  shapes (width x height)"]
    for centres, mean in zip(clusters, means, strict=True):
        listed = "  ".join(f"{w:.0f}x{h:.0f}" for w, h in centres)
        said.append(f"{len(centres):2}  {mean:13.3f}  {listed}")
    plain = fitting.kmeans(shapes, len(clusters), seed, "euclidean")
    others = [fitting.mean_best_iou(shapes, centres) for centres in plain]
    said += ["", "by Euclidean distance: " + " ".join(f"{x:.3f}" for x in others)]
    said += ["", *darknet(clusters)]
    shown: dict[str, np.ndarray] = {}
    if model is not None:
        better = priors.fitted(sample, model, settings)
        now = model.priors(sample.usual)
        said += [
            "",
            *advice(settings["name"], priors.fit(sample, model.priors), better),
        ]
        shown = {"held": kinds(now), "fitted": kinds(better.priors)}
    else:
        shown = {"centres": clusters[min(9, len(clusters)) - 1]}
        said += ["", "--model=NAME, or a config, turns them into its settings"]
    out = cli.make_workdir(out)
    makers = {"anchors.png": lambda: plot.anchors(shapes, means, others, **shown)}
    if style.save_all(out, makers):
        said += ["", f"drawn in {out / 'anchors.png'}"]
    return "\n".join(said)


def darknet(clusters: Sequence[np.ndarray]) -> list[str]:
    """Lines of darknet's files for as many clusters as its networks have anchors.

    [region] counts in cells of 32 pixels, [yolo] in pixels of the input.
    """
    lines = []
    for number, section, said in (
        (5, "[region]", "YOLOv2"),
        (6, "[yolo]", "tiny YOLOv3"),
        (9, "[yolo]", "YOLOv3"),
    ):
        if number > len(clusters):
            continue
        centres = clusters[number - 1]
        if section == "[region]":
            text = ", ".join(f"{w:.4g},{h:.4g}" for w, h in centres / CELL)
        else:
            text = ", ".join(f"{w:.0f},{h:.0f}" for w, h in np.maximum(centres, 1))
        lines.append(f"darknet's {section} of {said}, num={number}:  anchors = {text}")
    return lines


def spread(shapes: np.ndarray) -> str:
    """The middle nine tenths of the sizes and ratios of shapes [n 2], in words."""
    side = np.quantile(np.sqrt(shapes.prod(axis=1)), (0.05, 0.5, 0.95))
    slant = np.quantile(shapes[:, 0] / shapes[:, 1], (0.05, 0.95))
    return (
        f"nine in ten are {side[0]:.0f} to {side[2]:.0f} large (median {side[1]:.0f}), "
        f"width over height {slant[0]:.2f} to {slant[1]:.2f}"
    )


def advice(name: str, now: priors.Fit, better: priors.Fitted) -> list[str]:
    """What fits, compared with what the model has, as flags and as config text."""
    held = better.priors
    rule = f"IoU {held.positive} (model.{held.setting})"
    lines = [
        f"{name}: priors now      mean best IoU {now.mean:.3f}, {now.share:.1%} of the "
        f"objects reach {rule}",
        f"{' ' * len(name)}  fitted priors   mean best IoU {better.fit.mean:.3f}, "
        f"{better.fit.share:.1%}",
        "",
    ]
    if better.fit.share + better.fit.mean <= now.share + now.mean + 0.02:
        lines += ["the present priors fit as well as fitted ones; no need to change"]
    if better.fit.share < priors.MOST:
        lines += [
            "Unlike the clusters, priors lie at the places of a grid, and most objects "
            "lie between them: a larger data.size, a finer level of the backbone "
            "(model.backbone.levels), or a lower IoU "
            f"(model.{held.setting}) reaches more than other sizes do."
        ]
    flags = [f"--config.model.{k}={flag(v)}" for k, v in better.settings.items()]
    stages: dict[str, dict[str, Any]] = {}
    for path, value in better.settings.items():
        stage, setting = path.split(".")
        stages.setdefault(stage, {})[setting] = value
    lines += ["as flags:", "  " + " ".join(flags), "in the config's section model:"]
    for stage, values in stages.items():
        lines += [f'  "{stage}": {{']
        lines += [f'      "{setting}": {value},' for setting, value in values.items()]
        lines += ["  },"]
    return lines


def flag(value: Any) -> str:
    """A value as a shell takes it."""
    text = repr(value).replace(" ", "")
    return f'"{text}"' if "(" in text else text


def kinds(held: Any) -> np.ndarray:
    """The (w, h) [k 2] of all kinds of priors."""
    boxes = np.concatenate([level.boxes for level in held.levels])
    return boxes[:, 2:] - boxes[:, :2]
