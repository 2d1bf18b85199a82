"""Metrics of the maps of a split, summed as its images come."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from detjax.data.records import Record, Unreadable
from detjax.eval import depth
from detjax.eval.collected import Parts
from detjax.tasks.dense import storage
from detjax.tasks.dense.answers import Found
from detjax.types import Table


class Meter:
    """Sums what is found in the images of a split: memory does not grow with them.

    `parts` has one row: "values", [1 k] float64, those of `eval.depth.SUMS`. Truths are
    read one by one.
    """

    def __init__(self, records: Sequence[Record], info: Any, skip: bool = False):
        self._records, self._info, self._skip = records, info, skip
        self._sums: np.ndarray | None = None

    def again(self) -> "Meter":
        """A meter of the same split, of nothing yet."""
        return Meter(self._records, self._info, self._skip)

    def add(self, place: int, found: Found) -> None:
        """Adds the map of the image at `place`. Raises Unreadable.

        With `skip` an image whose truth cannot be read is left out.
        """
        try:
            truth, valid = storage.read(self._records[place])
        except Unreadable:
            if self._skip:
                return
            raise
        more = depth.sums(truth, found.values, valid)
        self._sums = more if self._sums is None else self._sums + more

    @property
    def parts(self) -> Parts:
        """What is summed, of one row; nothing where there is no image."""
        return {} if self._sums is None else {"values": self._sums[None]}

    def result(self, parts: Mapping[str, np.ndarray]) -> dict[str, float]:
        """The metrics of `eval.depth`, of all pixels; what is undefined is -1."""
        found = depth.metrics(self._summed(parts))
        return {k: -1.0 if np.isnan(v) else float(v) for k, v in found.items()}

    def names(self) -> list[str]:
        """The names of the metrics of `result`, without reading anything."""
        return [*self.result({})]

    def files(self, parts: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """None: the sums say nothing that the metrics do not."""
        return {}

    def plots(self, parts: Mapping[str, np.ndarray]) -> dict[str, Callable[[], Any]]:
        """None."""
        return {}

    def table(self, parts: Mapping[str, np.ndarray]) -> Table:
        """The metrics of the quantity."""
        total = self._summed(parts)
        found = depth.metrics(total)
        name = self._info.classes[0] if len(self._info.classes) == 1 else "values"
        columns = ("class", "pixels", *found)
        return Table(columns, [(name, int(total[0]), *found.values())], 2)

    def _summed(self, parts: Mapping[str, np.ndarray]) -> np.ndarray:
        if "values" not in parts:
            return np.zeros(len(depth.SUMS))
        return parts["values"].sum(axis=0)


def meter(
    records: Sequence[Record],
    info: Any,
    image_ids: Sequence[int | str],
    skip: bool = False,
) -> Meter:
    """A meter of a split, of `records` without images.

    With `skip` images whose truth cannot be read are left out.
    """
    return Meter(records, info, skip)
