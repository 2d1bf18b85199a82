"""A number for every pixel, such as its depth."""

from detjax.tasks.dense import (
    answers,
    drawing,
    meter,
    quantities,
    storage,
    subject,
    targets,
)
from detjax.tasks.dense.answers import Found
from detjax.tasks.dense.targets import Targets
from detjax.types import Task, ValueMap

__all__ = ["TASK", "Found", "Targets"]

TASK = Task(
    name="dense",
    target=ValueMap,
    features=storage.features,
    encode=storage.encode,
    decode=storage.decode,
    fault=storage.fault,
    facts=storage.facts,
    regions=storage.regions,
    targets=targets.targets,
    warnings=targets.warnings,
    shrink=answers.shrink,
    mirror=answers.mirror,
    rescale=answers.rescale,
    merge=answers.merge,
    restore=answers.restore,
    confident=answers.confident,
    meter=meter.meter,
    entries=answers.entries,
    truth=drawing.truth,
    draw=drawing.draw,
    least_score=0.0,
    stitch=answers.stitch,
    quantities={"value": quantities.value},
    ask=subject.ask,
    files=drawing.files,
    endings=(drawing.ENDING,),
)
