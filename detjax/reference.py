"""The settings of configs as tables: key, default, what it may be, what it does.

Defaults and ranges come from the signatures, descriptions from the docstrings of the
functions and stages whose keywords the sections hold.
"""

import dataclasses
import inspect
import textwrap
from collections.abc import Iterator
from typing import Any, NamedTuple

from detjax import experiment, models, settings

# Of each task a model, whose sections besides `model` are those of the task.
EXAMPLES = {task: next(iter(found)) for task, found in models.BY_TASK.items()}
# A model of each family, by what the family is called.
FAMILIES = {
    "SSD": "ssd",
    "RetinaNet": "retinanet",
    "FCOS": "fcos",
    "CornerNet": "cornernet",
    "YOLO": "yolov3",
    "Detectors of a cfg": "darknet",
    "YOLACT and YOLACT++": "yolact",
    "Two-stage detectors": "mask_rcnn",
    "R-CNN": "rcnn",
    "CenterNet": "centernet",
    "CenterNet on hourglasses": "centernet_hourglass",
    "Hourglass, poses": "hourglass_pose",
    "Sliding windows": "sliding_window",
    "Localisation": "localiser",
    "FCN": "fcn8s",
    "FCN on a dilated backbone": "fcn_resnet",
    "SegNet": "segnet",
    "SegNet basic": "segnet_basic",
    "DeconvNet": "deconvnet",
    "U-Net": "unet",
    "PSPNet": "pspnet",
    "DeepLabV3": "deeplabv3",
    "DeepLabV3+": "deeplabv3plus",
    "LR-ASPP": "lraspp",
    "Gated-SCNN": "gscnn",
    "Semantic FPN": "semantic_fpn",
    "A classifier at every place": "dense_classifier",
    "Edges": "hed",
    "Depth": "dense_fpn",
    "Depth by U-Net": "dense_unet",
    "Labels and depth": "scene_fpn",
    "Classifiers": "classifier",
    "Classifiers of a cfg": "darknet_classifier",
}
MOST_NAMES = 20  # that a table lists of what a setting may be


class Row(NamedTuple):
    """A setting."""

    key: str  # dotted: "optimizer.schedule.peak"
    default: str  # as Python writes it; "" of a required one
    kind: str
    text: str  # "" where no docstring describes it


def rows(path: str, *makers: experiment.Function) -> Iterator[Row]:
    """The settings that `makers` take as keywords, those of stages after their stage.

    `path` is the section or setting that holds them.
    """
    hidden = (*experiment.NOT_SETTINGS, *experiment.OF_THE_RUN.get(path, ()))
    seen = set(hidden)
    for maker in makers:
        texts = settings.described(maker)
        for name, parameter in settings.keywords(maker).items():
            if name in seen:
                continue
            seen.add(name)
            key, default = f"{path}.{name}", parameter.default
            stage = settings.stage_of(parameter.annotation)
            if stage is not None and dataclasses.is_dataclass(default):
                yield from stage_rows(key, default)
                continue
            kind = kind_of(parameter.annotation)
            yield Row(key, shown(default), kind, texts.get(name, ""))
            if stage is not None:
                yield from stage_rows(key, stage())
            if key in experiment.NESTED and key != "data.prepare":
                yield from rows(key, *experiment.NESTED[key])


def stage_rows(path: str, stage: Any) -> Iterator[Row]:
    """The settings of a stage, with the values that it holds as defaults."""
    texts = settings.described(type(stage))
    for name, parameter in settings.keywords(type(stage)).items():
        value, key = getattr(stage, name), f"{path}.{name}"
        if dataclasses.is_dataclass(value):
            yield from stage_rows(key, value)
            continue
        kind = kind_of(parameter.annotation)
        yield Row(key, shown(value), kind, texts.get(name, ""))


def kind_of(annotation: Any) -> str:
    """What a setting may be; of many names the first three."""
    words = settings.describe(annotation)
    names = words.split(", ")
    if len(names) <= MOST_NAMES:
        return words
    return f"{', '.join(names[:3])} or {len(names) - 3} others"


def shown(default: Any) -> str:
    """A default as Python writes it; "" where there is none."""
    return "" if default is inspect.Parameter.empty else repr(default)


def of_runs() -> dict[str, list[Row]]:
    """The settings of all sections but `model`, by section; of all tasks."""
    found: dict[str, dict[str, Row]] = {}
    for name in EXAMPLES.values():
        for section, makers in experiment.functions(name).items():
            if section != "model":
                for row in rows(section, *makers):
                    found.setdefault(section, {}).setdefault(row.key, row)
    for maker in experiment.NESTED["data.prepare"]:
        for row in rows("data.prepare", maker):
            held = found["data"].get(row.key, row)
            found["data"][row.key] = row._replace(text=held.text or row.text)
    return {section: list(held.values()) for section, held in found.items()}


def of_models() -> dict[str, list[Row]]:
    """The settings of the section `model`, by family."""
    return {
        family: list(rows("model", models.MODELS[name], models.wrapped))
        for family, name in FAMILIES.items()
    }


def listed(found: list[Row]) -> str:
    """Settings as text: a line each, what they do below it."""
    lines = []
    for row in found:
        lines.append(f"{row.key} = {row.default or '(required)'}: {row.kind}")
        lines += [f"    {line}" for line in textwrap.wrap(row.text, 80)]
    return "\n".join(lines)


def table(found: list[Row]) -> str:
    """Settings as a table in Markdown."""
    lines = ["| key | default | may be | |", "|---|---|---|---|"]
    for row in found:
        default = f"`{row.default}`" if row.default else "required"
        cells = (f"`{row.key}`", default, row.kind, row.text)
        lines.append("| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
    return "\n".join(lines)
