"""Rows of batches, by number: which record, which randomness, what if it is unreadable.

A row depends on the seed and its place in the stream alone, whoever fills it.
"""

import dataclasses
import functools
import sys
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from detjax.data import plan, sizing, views
from detjax.data.example import Prepare
from detjax.data.records import Record, Unreadable
from detjax.errors import UserError
from detjax.types import Batch

# The random streams of a row: of what augments its picture, of further ones in it, and
# of the mosaic or blend itself.
PICTURE, LAYOUT, WHICH, OTHERS = 1, 2, 6, (3, 4, 5)


@dataclasses.dataclass(frozen=True)
class Examples:
    """Records of a split, from which rows of batches are filled."""

    source: Sequence[Record]
    prepare: Prepare
    sizes: sizing.InputSizes
    split: str

    def empty(self, bucket: int, rows: int) -> Batch:
        """An empty batch of `rows` rows for images of a bucket."""
        # OpenCV's own threads would compete with those that fill rows; its messages
        # about broken files are replaced by ours.
        cv2.setNumThreads(1)
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        return self.prepare.empty(rows, self.sizes.buckets[bucket])

    @property
    def buckets(self) -> int:
        return len(self.sizes.buckets)

    def put(self, batch, row, indices, place, draw=None) -> None:
        """Writes a record, or several, into a row for `place`.

        `indices` are their numbers, the row's own first; `draw` gives the random
        generator of a number. Raises Unreadable that names the record.
        """
        batch.index[row] = index = indices[0]
        record = None

        def pictures():
            nonlocal index, record
            for index in indices:
                record = None
                record = self.source[index]
                size = record.height, record.width
                yield record, self.sizes.resize(size, place.bucket, place.short)

        try:
            if len(indices) > 1:
                streams = PICTURE, *OTHERS[: len(indices) - 1], LAYOUT
                self.prepare.fill_several(batch, row, pictures(), map(draw, streams))
            else:
                rng = draw and draw(PICTURE)
                record, fit = next(pictures())
                self.prepare.fill(batch, row, record, fit, rng)
        except Unreadable as error:
            raise Unreadable(f"{self._name(index, record)}: {error}") from None
        except MemoryError as error:
            raise UserError(
                f"there is not enough memory for {self._name(index, record)}; set "
                "data.batch_size, data.workers or data.threads lower, or drop it"
            ) from error

    def name(self, index: int) -> str:
        """The name of record number `index` in messages, as far as it can be read."""
        try:
            return self._name(index, self.source[index])
        except Unreadable:
            return self._name(index, None)

    def _name(self, index: int, record: Record | None) -> str:
        known = f" ({record.file_name}, image {record.id})" if record else ""
        return f"record {index} of split {self.split!r}{known}"


def _generator(seed: int, position: int, stream: int) -> np.random.Generator:
    return np.random.default_rng([seed, position, stream])


@dataclasses.dataclass(frozen=True)
class TrainBatches:
    """This process's rows of the batches of a run, by number.

    tries consecutive records that are tried for a readable one before a UserError
    first  images of the stream (all processes) before the first batch
    """

    examples: Examples
    plan: plan.Plan
    batch_size: int
    part: slice
    seed: int
    tries: int
    first: int = 0

    def __len__(self) -> int:
        return (sys.maxsize - self.first) // self.batch_size

    @property
    def rows(self) -> int:
        return self.part.stop - self.part.start

    @property
    def buckets(self) -> int:
        return self.examples.buckets

    def bucket(self, number: int) -> int:
        return self.plan[self._position(number, 0)].bucket

    def begun(self, first: int) -> "TrainBatches":
        return dataclasses.replace(self, first=first)

    def empty(self, bucket: int, rows: int) -> Batch:
        return self.examples.empty(bucket, rows)

    def clear(self, batch: Batch, at: int) -> None:
        self.examples.prepare.clear(batch, at)

    def fill(self, batch: Batch, at: int, number: int, row: int) -> None:
        """Fills a row with the record of its place, or the next readable one.

        Raises UserError that names the last one tried.
        """
        position = self._position(number, row)
        place = self.plan[position]
        # The plan uses seeds of two numbers; three keep these streams distinct.
        draw = functools.partial(_generator, self.seed, position)
        others = self._others(position, draw)
        for further in range(self.tries):
            index = (place.record + further) % len(self.examples.source)
            # With others that cannot be read a picture comes alone.
            for rest in (others, ()) if others and self.tries > 1 else (others,):
                try:
                    return self.examples.put(batch, at, (index, *rest), place, draw)
                except Unreadable as error:
                    why = str(error)
            batch.skipped[at] = place.record
        raise UserError(
            f"{why}; set data.on_error='skip' to go on without it"
            if self.tries == 1
            else f"{self.tries} records in a row cannot be read, the last {why}"
        )

    def _others(
        self, position: int, draw: Callable[[int], np.random.Generator]
    ) -> tuple[int, ...]:
        """The further records of the row at `position`; () for a picture alone."""
        several = self.examples.prepare.several
        if several is None:
            return ()
        batch = position // self.batch_size
        return several.others(draw(WHICH), batch, len(self.examples.source))

    def _position(self, number: int, row: int) -> int:
        return self.first + number * self.batch_size + self.part.start + row


@dataclasses.dataclass(frozen=True)
class EvalBatches:
    """This process's rows of the batches of an evaluation, by number.

    skip leave an unreadable image grey instead of raising UserError
    """

    examples: Examples
    places: Sequence[plan.Place]
    batch_size: int
    part: slice
    skip: bool

    def __len__(self) -> int:
        return len(self.places) // self.batch_size

    @property
    def rows(self) -> int:
        return self.part.stop - self.part.start

    @property
    def buckets(self) -> int:
        return self.examples.buckets

    def bucket(self, number: int) -> int:
        return self._place(number, 0).bucket

    def begun(self, first: int) -> "EvalBatches":
        """The same: an evaluation has no position."""
        return self

    def empty(self, bucket: int, rows: int) -> Batch:
        return self.examples.empty(bucket, rows)

    def clear(self, batch: Batch, at: int) -> None:
        self.examples.prepare.clear(batch, at)

    def fill(self, batch: Batch, at: int, number: int, row: int) -> None:
        """Fills a row with the record of its place; without `skip` raises UserError."""
        place = self._place(number, row)
        try:
            self.examples.put(batch, at, (place.record,), place)
        except Unreadable as error:
            if not self.skip:
                raise UserError(
                    f"{error}; set data.on_error='skip' to count its objects as missed"
                ) from None
            batch.inputs.images[at] = views.FILL
            batch.skipped[at] = place.record
            if place.valid:  # padding repeats were already reported
                print(f"warning: {error}; its objects count as missed", file=sys.stderr)
        batch.inputs.view.valid[at] &= place.valid

    def _place(self, number: int, row: int) -> plan.Place:
        return self.places[number * self.batch_size + self.part.start + row]
