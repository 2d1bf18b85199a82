"""Tasks, one per file or folder, registered in a dict by name."""

from detjax.tasks import (
    classification,
    dense,
    detection,
    localisation,
    scene,
    segmentation,
)
from detjax.types import Task

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        classification.TASK,
        dense.TASK,
        detection.TASK,
        localisation.TASK,
        scene.TASK,
        segmentation.TASK,
    )
}
