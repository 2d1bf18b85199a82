"""What a data set says of itself, for tests that read none."""

import pathlib
from collections.abc import Iterable
from typing import Any

from detjax.data.builder import Info


def info(classes: Iterable[str] = ("a", "b", "c"), **known: Any) -> Info:
    """The information of a data set of `classes`; `known` are further fields of it.

    The whole of it, so that no test breaks where a task comes to read a field more.
    """
    classes = tuple(classes)
    return Info(
        **{
            "name": "s",
            "classes": classes,
            "splits": {},
            "has_masks": True,
            "keypoints": (),
            "category_ids": tuple(range(1, len(classes) + 1)),
            "max_objects": 100,
            "made_from": {},
            "directory": pathlib.Path(),
            "max_proposals": 0,
            **known,
        }
    )
