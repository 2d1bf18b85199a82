"""A class and a number, such as its depth, for every pixel."""

from detjax.tasks import dense, segmentation
from detjax.tasks.joint import joint

TASK = joint("scene", segmentation.TASK, dense.TASK)
