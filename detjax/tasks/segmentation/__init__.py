"""Semantic segmentation: a class for every pixel."""

from detjax.tasks.segmentation import (
    answers,
    drawing,
    meter,
    quantities,
    stitching,
    storage,
    subject,
    targets,
)
from detjax.tasks.segmentation.answers import Found
from detjax.tasks.segmentation.targets import Targets
from detjax.types import LabelMap, Task

__all__ = ["TASK", "Found", "Targets"]

TASK = Task(
    name="segmentation",
    target=LabelMap,
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
    stitch=stitching.stitch,
    quantities={"score": quantities.score},
    ask=subject.ask,
    explained=subject.EXPLAINED,
    files=drawing.files,
    endings=(drawing.ENDING,),
)
