"""Detection targets on the host: warped, padded, with rasterised masks."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from detjax.data import frames, rectangles, rle
from detjax.data.frames import Seen
from detjax.data.records import Annotation, Record, Unreadable
from detjax.errors import UserError
from detjax.settings import Count, NonNegative
from detjax.tasks.detection.rasters import draw_masks, spans
from detjax.types import Objects

# What is counted of every image.
COUNTS = ("objects", "objects cut", "objects too small")
# Pixels of the input that arithmetic may move a side by.
_CLOSE = 1e-3


class Truth(NamedTuple):
    """The objects of one image, in its pixels."""

    annotations: list[Annotation]
    boxes: np.ndarray  # [m 4]
    runs: rle.Runs | None  # their masks, where masks are wanted; empty of those without


@dataclasses.dataclass(frozen=True)
class Targets:
    """Objects padded to a fixed number; see `targets` for the settings."""

    max_objects: int
    mask_stride: int | None = None
    mask_size: int | None = None
    min_size: float = 1.0
    keypoints: tuple[str, ...] = ()
    oriented: bool = False
    amodal: bool = False

    @property
    def outlined(self) -> bool:
        """Whether masks are needed."""
        return (
            self.mask_stride is not None or self.mask_size is not None or self.oriented
        )

    def evaluation(self) -> "Targets":
        """The same without masks: predicting reads none."""
        return dataclasses.replace(
            self, mask_stride=None, mask_size=None, oriented=False
        )

    def empty(
        self, count: int, size: tuple[int, int]
    ) -> tuple[Objects, dict[str, np.ndarray]]:
        """Room for the objects of `count` images of `size` (h, w), and for counts."""
        h, w = size
        n = self.max_objects
        masks = box_masks = keypoints = oriented = amodal = None
        if self.mask_stride is not None:
            grid = -(-h // self.mask_stride), -(-w // self.mask_stride)
            masks = np.zeros((count, n, *grid), np.uint8)
        if self.mask_size is not None:
            grid = self.mask_size, self.mask_size
            box_masks = np.zeros((count, n, *grid), np.uint8)
        if self.keypoints:
            keypoints = np.zeros((count, n, len(self.keypoints), 3), np.float32)
        if self.oriented:
            oriented = np.zeros((count, n, 5), np.float32)
        if self.amodal:
            amodal = np.zeros((count, n, 4), np.float32)
        objects = Objects(
            boxes=np.zeros((count, n, 4), np.float32),
            labels=np.zeros((count, n), np.int32),
            valid=np.zeros((count, n), bool),
            crowd=np.zeros((count, n), bool),
            masks=masks,
            box_masks=box_masks,
            keypoints=keypoints,
            oriented=oriented,
            amodal=amodal,
        )
        return objects, {name: np.zeros(count, np.int32) for name in COUNTS}

    def clear(self, objects: Objects) -> None:
        """Makes an image's room empty again: its objects come first."""
        used = np.flatnonzero(objects.valid)[-1:]
        for values in jax.tree.leaves(objects):
            values[: int(used[0]) + 1 if len(used) else 0] = 0

    def read(self, record: Record, outlines: bool = False) -> Truth:
        """The truth of a record, its masks decoded far enough to validate them.

        With `outlines` also where no masks are learnt, for the boxes of rotated
        objects. Raises Unreadable where masks are not valid.
        """
        boxes = np.array([a.box for a in record.truth], np.float64).reshape(-1, 4)
        runs = None
        if outlines or self.outlined:
            codes = [a.rle or b"" for a in record.truth]
            try:
                runs = rle.runs_of_all(codes, (record.height, record.width))
            except ValueError as error:
                raise Unreadable(f"an annotation {error}") from None
        return Truth(record.truth, boxes, runs)

    def fill(
        self, objects: Objects, seen: Sequence[Seen], size: tuple[int, int]
    ) -> dict[str, int]:
        """Writes the objects whose centre is in the window that shows their picture.

        `size` (h, w) is the input's. Returns `COUNTS`: how many there are, how many
        were left out for want of room, and how many as too small.
        """
        visible = [self._visible(one) for one in seen]
        boxes = np.concatenate([v.boxes for v in visible])
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
        largest = np.arange(len(boxes))
        if len(boxes) > self.max_objects:
            crowds = [
                one.truth.annotations[i].crowd
                for one, own in zip(seen, visible, strict=True)
                for i in own.inside.tolist()
            ]
            largest = np.lexsort((-areas, crowds))[: self.max_objects]
        n, first, begin = len(largest), 0, 0
        for one, own in zip(seen, visible, strict=True):
            number = len(own.boxes)
            kept = np.sort(largest[(largest >= first) & (largest < first + number)])
            rows = slice(begin, begin + len(kept))
            room = jax.tree.map(lambda x, rows=rows: x[rows], objects)
            self._put(room, one, own.some(kept - first), size)
            first, begin = first + number, rows.stop
        small = sum(v.small for v in visible)
        return dict(zip(COUNTS, (n, len(boxes) - n, small), strict=True))

    def _visible(self, seen: Seen) -> "_Visible":
        """The objects of a picture that can be learnt of what is seen of it."""
        low, high = seen.window[[0, 1, 0, 1]], seen.window[[2, 3, 2, 3]]
        moved = moved_boxes(seen.truth, seen.matrix)
        inside = np.flatnonzero(frames.centred(moved, seen.window))
        moved = moved[inside]
        boxes = np.clip(moved, low, high)
        large = (boxes[:, 2:] - boxes[:, :2]).min(axis=1) >= self.min_size
        small = len(inside) - int(large.sum())
        beyond = np.abs(moved - boxes) > _CLOSE
        return _Visible(inside, boxes, beyond, small).some(large)

    def _put(
        self,
        objects: Objects,
        seen: Seen,
        visible: "_Visible",
        size: tuple[int, int],
    ) -> None:
        """Writes the objects `visible` of a picture to as many rows."""
        (truth, matrix, window, _), (h, w) = seen, size
        numbers, boxes = visible.inside, visible.boxes
        chosen = [truth.annotations[i] for i in numbers.tolist()]
        n = len(chosen)
        objects.boxes[:] = boxes
        objects.labels[:] = [a.label for a in chosen]
        objects.valid[:] = True
        # VOC's difficult objects are ignored, and so are those without a mask when
        # masks are learnt.
        objects.crowd[:] = [
            a.crowd or a.difficult or (self.outlined and a.rle is None) for a in chosen
        ]
        if self.mask_stride is not None:
            grid = objects.masks.shape[1:]
            cells = frames.scaling(grid[1] / w, grid[0] / h)
            matrices = np.tile(cells @ matrix, (n, 1, 1))
            # The cells whose centres the window has.
            shown = frames.move_boxes(window[None].astype(np.float64), cells)[0]
            within = np.ceil(shown - 0.5).astype(np.int64)
            draw_masks(objects.masks, truth.runs, numbers, matrices, within)
        if self.mask_size is not None:
            to_boxes = spans(boxes, self.mask_size) @ matrix
            draw_masks(objects.box_masks, truth.runs, numbers, to_boxes)
        if self.oriented:
            given = [a.corners for a in chosen]
            own = rectangles.of_objects(truth.runs, given, numbers)
            turned = rectangles.moved(own, matrix)
            left = visible.beyond.any(axis=1)
            turned[left] = rectangles.cut(turned[left], window)
            objects.oriented[:] = turned
        if self.amodal:
            whole = [a.box if a.amodal is None else a.amodal for a in chosen]
            moved = frames.move_boxes(np.reshape(whole, (-1, 4)).astype(float), matrix)
            # What is hidden may lie beyond the window, what the window hides may not:
            # so do objects end that leave a whole picture.
            objects.amodal[:] = np.where(visible.beyond, boxes, moved)
        if self.keypoints:
            absent = np.zeros((len(self.keypoints), 3))
            points = [absent if a.keypoints is None else a.keypoints for a in chosen]
            objects.keypoints[:] = frames.move_keypoints(
                np.reshape(points, (n, *absent.shape)),
                matrix,
                size,
                self.keypoints,
                window,
            )


class _Visible(NamedTuple):
    """The objects of a picture that can be learnt."""

    inside: np.ndarray  # [n] their numbers
    boxes: np.ndarray  # [n 4] pixels of the input, cut to the picture's window
    beyond: np.ndarray  # [n 4] which of their sides the window has cut
    small: int  # how many more are too small

    def some(self, chosen: np.ndarray) -> "_Visible":
        """Those that `chosen`, numbers or a mask, names."""
        return self._replace(
            inside=self.inside[chosen],
            boxes=self.boxes[chosen],
            beyond=self.beyond[chosen],
        )


def moved_boxes(truth: Truth, matrix: np.ndarray) -> np.ndarray:
    """The boxes [m 4] of a picture's objects under an affine `matrix` [3 3].

    Where it rotates: the box around the rotated mask, where there is one, else around
    the rotated box, which is larger than the object's; see `frames.move_boxes`.
    """
    boxes = frames.move_boxes(truth.boxes, matrix)
    if frames.upright(matrix) or truth.runs is None:
        return boxes
    masks, some = rle.moved_bounds(truth.runs, matrix)
    return np.where(some[:, None], masks, boxes)


def targets(
    info: Any,
    *,
    max_objects: Count = 100,
    mask_stride: Count | None = 4,
    mask_size: Count | None = None,
    min_size: NonNegative = 1.0,
    keypoints: bool = False,
    oriented: bool = False,
    amodal: bool = False,
) -> Targets:
    """How the objects of a data set become targets.

    max_objects  n of the padding; what is beyond it is cut off and counted, crowds
                 first, then the smallest objects
    mask_stride  input pixels a pixel of masks that span the input, or None
    mask_size    r of masks [r r] that span their object's box, or None; at 800 x 1333
                 they take a fortieth of the others' memory at stride 2
    min_size     pixels of the input; objects with a shorter side are left out, and
                 counted
    keypoints    whether objects have theirs
    oriented     whether they have boxes at an angle: their own, or the smallest
                 rectangles around their masks
    amodal       whether they have boxes of the whole of them, what is hidden included

    Raises UserError where the data set that `info` describes has no such things.
    """
    if keypoints and not info.keypoints:
        raise UserError(
            f"the data set {info.name!r} has no keypoints; set data.keypoints=False"
        )
    if (mask_stride or mask_size) and not info.has_masks:
        raise UserError(
            f"the data set {info.name!r} has no masks; set data.mask_stride=None (and "
            "data.mask_size) and model.mask=None in the config to learn boxes"
        )
    if oriented and not info.has_masks:
        raise UserError(
            f"the data set {info.name!r} has no masks, which oriented boxes are drawn "
            "around; set data.oriented=False"
        )
    if amodal and not info.has_amodal:
        raise UserError(
            f"the data set {info.name!r} does not know the whole of its objects; set "
            "data.amodal=False"
        )
    return Targets(
        max_objects,
        mask_stride,
        mask_size,
        min_size,
        info.keypoints if keypoints else (),
        oriented,
        amodal,
    )


def warnings(sums: dict[str, float]) -> dict[str, str]:
    """Warnings for a run's log about dropped objects, by subject.

    `sums` are those of `COUNTS` over some steps.
    """
    objects, cut, small = (sums[name] for name in COUNTS)
    found = {}
    if cut:
        found["cut"] = (
            f"{cut:.0f} objects did not fit into data.max_objects and were not learnt; "
            "raise it to keep them"
        )
    if small > objects:
        found["small"] = (
            "most objects are smaller than data.min_size and were not learnt; lower it "
            "to keep them"
        )
    return found
