"""Columns of numbers that grow as images come."""

import numpy as np

Parts = dict[str, np.ndarray]
LEAST = 1024  # rows that a column has room for


class Collected:
    """Columns by name, [n ...] each, to which rows are added.

    Room is taken in steps of half of what there is, so that n rows cost at most half as
    much again and are copied three times.
    """

    def __init__(self) -> None:
        self._room: Parts = {}
        self._counts: dict[str, int] = {}
        self._parts: Parts | None = None

    def add(self, rows: Parts) -> None:
        """Adds rows [m ...] to each of the columns named."""
        for name, more in rows.items():
            count = self._counts.get(name, 0)
            total = count + len(more)
            room = self._room.get(name)
            if room is None or len(room) < total:
                size = max(LEAST, total, count * 3 // 2)
                larger = np.empty((size, *more.shape[1:]), more.dtype)
                if room is not None:
                    larger[:count] = room[:count]
                self._room[name] = room = larger
            room[count:total] = more
            self._counts[name] = total
        self._parts = None

    @property
    def parts(self) -> Parts:
        """The columns; the same object until something is added."""
        if self._parts is None:
            self._parts = {k: v[: self._counts[k]] for k, v in self._room.items()}
        return self._parts
