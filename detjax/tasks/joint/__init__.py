"""Several tasks of the same pictures as one."""

from detjax.tasks.joint.functions import joint

__all__ = ["joint"]
