"""What detections are compared with, as the metric wants it."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from detjax.data import rectangles, rle
from detjax.data.records import Record, Unreadable
from detjax.errors import UserError
from detjax.eval import coco


class Truth(NamedTuple):
    """What an evaluation compares with: the readable images of a split."""

    columns: coco.Truths  # their image_ids are ranks
    # [n] of every record of the split: its place among the ids in rising order, which
    # decides between equal scores; -1 of a record that cannot be read
    ranks: np.ndarray
    masked: np.ndarray  # [m] bool: objects whose mask is known
    amodal: np.ndarray | None = None  # [m 4] xywh of whole objects
    # [4 2] of each object with a box at an angle of its own; None if none has
    corners: list[np.ndarray | None] | None = None

    @property
    def images(self) -> np.ndarray:
        """The ranks of the readable images."""
        return self.ranks[self.ranks >= 0]


def truth_of(records: Sequence[Record], skip: bool = False) -> Truth:
    """What `records` hold, as the metric wants it; it ignores difficult objects.

    An object without a mask in a set with masks is there with its box as a mask, so
    that detections of it count neither way where masks are judged. With `skip` records
    and masks that cannot be read are passed over; else they are a UserError.
    """
    ids: dict[int, int | str] = {}
    rows, sizes, rles, points, whole = [], [], [], [], []
    corners: list[np.ndarray | None] = []
    for place, record in readable(records, skip):
        ids[place] = record.id
        size = (record.height, record.width)
        for a, code in zip(record.truth, masks_of(place, record, skip), strict=True):
            x1, y1, x2, y2 = a.box
            box = (x1, y1, x2 - x1, y2 - y1)
            rows.append((place, a.label, *box, a.area, a.crowd, a.difficult))
            sizes.append(size)
            rles.append(code)
            points.append(a.keypoints)
            whole.append(a.amodal)
            corners.append(a.corners)
    ranks = np.full(len(records), -1)
    ranks[sorted(ids, key=lambda place: ids[place])] = np.arange(len(ids))
    table = np.array(rows, np.float64).reshape(-1, 9)
    masked = np.array([code is not None for code in rles], bool)
    return Truth(
        coco.Truths(
            image_ids=ranks[table[:, 0].astype(np.int64)],
            labels=table[:, 1].astype(np.int64),
            boxes=table[:, 2:6],
            areas=table[:, 6],
            crowd=table[:, 7].astype(bool),
            rles=complete(rles, sizes, table[:, 2:6]) if masked.any() else None,
            ignore=table[:, 8].astype(bool),
            keypoints=points_of(points),
        ),
        ranks,
        masked,
        wholes(whole, table[:, 2:6]),
        corners if any(four is not None for four in corners) else None,
    )


def turned(truth: Truth) -> np.ndarray:
    """The boxes at an angle [m 5]: objects' own, or the smallest around their masks."""
    codes = truth.columns.rles or []
    given = truth.corners or [None] * len(codes)
    found = [
        rectangles.of_codes([code["counts"]], [four], tuple(code["size"]))
        for code, four in zip(codes, given, strict=True)
    ]
    return np.concatenate(found) if found else np.zeros((0, 5))


def wholes(
    given: Sequence[Sequence[float] | None], boxes: np.ndarray
) -> np.ndarray | None:
    """Boxes xywh of whole objects, those of `boxes` [m 4] where they are not known.

    None where none is.
    """
    known = np.array([box is not None for box in given], bool)
    if not known.any():
        return None
    found = boxes.copy()
    found[known] = np.array([box for box in given if box is not None], np.float64)
    found[known, 2:] -= found[known, :2]
    return found


def readable(records: Sequence[Record], skip: bool) -> Iterator[tuple[int, Record]]:
    """The records with their places; those that cannot be read only if not `skip`.

    Those are a UserError.
    """
    for place in range(len(records)):
        try:
            yield place, records[place]
        except Unreadable as error:
            if not skip:
                raise UserError(f"record {place}: {error}") from None


def masks_of(place: int, record: Record, skip: bool) -> list[bytes | None]:
    """The masks of a record's annotations; with `skip` none where one is broken.

    pycocotools reads uninitialised memory if a code is too short.
    """
    codes = [a.rle for a in record.truth]
    try:
        rle.runs_of_all([c or b"" for c in codes], (record.height, record.width))
    except ValueError as error:
        if not skip:
            raise UserError(
                f"record {place} ({record.file_name}, image {record.id}): an "
                f"annotation {error}; set data.on_error='skip' to judge its boxes only"
            ) from None
        return [None] * len(codes)
    return codes


def complete(
    codes: Sequence[bytes | None], sizes: Sequence[tuple[int, int]], boxes: np.ndarray
) -> list[dict[str, Any]]:
    """The masks of all objects, of `boxes` [m 4] xywh, which some have instead."""
    found = []
    for code, size, (x, y, w, h) in zip(codes, sizes, boxes.tolist(), strict=True):
        if code is None:
            corners = [x, y, x + w, y, x + w, y + h, x, y + h]
            code = rle.from_polygons([corners], size)
        found.append({"size": list(size), "counts": code})
    return found


def points_of(keypoints: list[np.ndarray | None]) -> np.ndarray | None:
    """Keypoints [m k 3], not visible where an object has none; None where none has."""
    known = [points for points in keypoints if points is not None]
    if not known:
        return None
    absent = np.zeros_like(known[0])
    rows = [absent if points is None else points for points in keypoints]
    return np.array(rows, np.float64)
