"""Tasks, one per file or folder, registered in a dict by name."""

from detjax.tasks import classification, detection, localisation
from detjax.types import Task

TASKS: dict[str, Task] = {
    task.name: task for task in (classification.TASK, detection.TASK, localisation.TASK)
}
