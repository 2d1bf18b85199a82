"""Image classification, single-label or multi-label."""

from detjax.tasks.classification import (
    answers,
    drawing,
    meter,
    quantities,
    storage,
    subject,
    targets,
)
from detjax.tasks.classification.answers import Found
from detjax.tasks.classification.targets import Targets
from detjax.types import Label, Task

__all__ = ["TASK", "Found", "Targets"]

TASK = Task(
    name="classification",
    target=Label,
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
    quantities={"score": quantities.score},
    ask=subject.ask,
    explained=subject.EXPLAINED,
)
