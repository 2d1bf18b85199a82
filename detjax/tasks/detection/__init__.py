"""Detection: boxes with classes, and their masks and keypoints."""

from detjax.tasks.detection import (
    drawing,
    merging,
    meter,
    quantities,
    restore,
    storage,
    subject,
    targets,
)
from detjax.types import Objects, Task

TASK = Task(
    name="detection",
    target=Objects,
    features=storage.features,
    encode=storage.encode,
    decode=storage.decode,
    fault=storage.fault,
    facts=storage.facts,
    regions=storage.regions,
    targets=targets.targets,
    warnings=targets.warnings,
    shrink=restore.shrink,
    mirror=merging.mirror,
    rescale=merging.rescale,
    merge=merging.merge,
    restore=restore.restore,
    confident=restore.confident,
    meter=meter.meter,
    entries=restore.entries,
    truth=drawing.truth,
    draw=drawing.draw,
    quantities=quantities.QUANTITIES,
    ask=subject.ask,
    explained=subject.EXPLAINED,
)
