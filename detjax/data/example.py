"""One record brought into its place of a batch: decoded, augmented, moved, padded."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import jax
import numpy as np

from detjax.data import augment, pixels, rle
from detjax.data.plan import Fit
from detjax.data.records import Annotation, Record, Unreadable
from detjax.errors import UserError
from detjax.types import Batch, Objects, Proposals


def decode(image: bytes) -> np.ndarray:
    """RGB uint8 [h w 3] of an encoded image, as stored.

    Data sets store images upright, so that EXIF has nothing to rotate. Raises UserError
    where nothing can be decoded.
    """
    return pixels.decode(image, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)


def read(record: Record) -> np.ndarray:
    """The image [h w 3] of a record. Raises Unreadable."""
    try:
        image = decode(record.image)
    except ValueError as error:
        raise Unreadable(str(error)) from None
    if image.shape[:2] != (record.height, record.width):
        raise Unreadable(
            f"the image is {image.shape[0]} x {image.shape[1]} pixels (height x "
            f"width), its record says {record.height} x {record.width}"
        )
    return image


def empty(
    count: int,
    size: tuple[int, int],
    max_objects: int,
    mask_stride: int | None,
    mask_size: int | None = None,
    keypoints: int = 0,
    max_proposals: int = 0,
) -> Batch:
    """A batch of `count` rows to be filled: its images are arbitrary, none is valid.

    There are masks, keypoints and proposals where their number is more than none.
    """
    h, w = size
    masks = box_masks = None
    if mask_stride is not None:
        grid = -(-h // mask_stride), -(-w // mask_stride)
        masks = np.zeros((count, max_objects, *grid), np.uint8)
    if mask_size is not None:
        grid = mask_size, mask_size
        box_masks = np.zeros((count, max_objects, *grid), np.uint8)
    return Batch(
        images=np.empty((count, h, w, 3), np.uint8),
        objects=Objects(
            boxes=np.zeros((count, max_objects, 4), np.float32),
            labels=np.zeros((count, max_objects), np.int32),
            valid=np.zeros((count, max_objects), bool),
            crowd=np.zeros((count, max_objects), bool),
            masks=masks,
            box_masks=box_masks,
            keypoints=np.zeros((count, max_objects, keypoints, 3), np.float32)
            if keypoints
            else None,
        ),
        index=np.zeros(count, np.int32),
        affine=np.tile(np.eye(2, 3, dtype=np.float32), (count, 1, 1)),
        sizes=np.zeros((count, 2), np.int32),
        valid=np.zeros(count, bool),
        cut=np.zeros(count, np.int32),
        small=np.zeros(count, np.int32),
        skipped=np.full(count, -1, np.int32),
        proposals=no_proposals(count, max_proposals) if max_proposals else None,
    )


def no_proposals(count: int, most: int) -> Proposals:
    """Room for `most` proposals in each of `count` images."""
    return Proposals(
        boxes=np.zeros((count, most, 4), np.float32),
        valid=np.zeros((count, most), bool),
    )


@dataclasses.dataclass(frozen=True)
class Prepare:
    """A record as a `Batch` of one without its leading axis, or as a row of a batch.

    size           (h, w) of the network's input, where a call does not name its own
    max_objects    n of the padding; what is beyond it is cut off and counted, the
                   smallest objects first
    mask_stride    input pixels a pixel of masks that span the input, or None
    mask_size      r of masks [r r] that span their object's box, or None; at 800 x 1333
                   they take a fortieth of the others' memory at stride 2
    min_size       pixels of the input; objects with a shorter side are left out, and
                   counted
    letterbox      keep the aspect ratio and fill up, instead of stretching
    augment        keywords of `augment.augment`; None where nothing is to be random
    keypoints      the names of an object's keypoints; () for none
    max_proposals  p of the padding, 0 for none; the first that are in the input stay
    """

    size: tuple[int, int] | None
    max_objects: int
    mask_stride: int | None = None
    mask_size: int | None = None
    min_size: float = 1.0
    letterbox: bool = False
    augment: Mapping[str, Any] | None = None
    keypoints: tuple[str, ...] = ()
    max_proposals: int = 0

    def __call__(self, record: Record, rng: np.random.Generator | None = None) -> Batch:
        batch = self.empty(1, self.size)
        try:
            self.fill(batch, 0, record, Fit(self.size, self.letterbox), rng)
        except Unreadable as error:
            raise UserError(
                f"{record.file_name} (image {record.id}): {error}"
            ) from None
        return jax.tree.map(lambda x: x[0], batch)

    def empty(self, count: int, size: tuple[int, int]) -> Batch:
        """See `empty` above, with this padding."""
        return empty(
            count,
            size,
            self.max_objects,
            self.mask_stride,
            self.mask_size,
            len(self.keypoints),
            self.max_proposals,
        )

    def fill(
        self,
        batch: Batch,
        row: int,
        record: Record,
        fit: Fit,
        rng: np.random.Generator | None = None,
    ) -> None:
        """Puts `record` into an empty `row` of `batch`, brought into it by `fit`.

        Raises Unreadable, with nothing put there.
        """
        image = read(record)
        runs = self._runs(record)
        size = image.shape[:2]
        boxes = np.array([a.box for a in record.annotations], np.float64).reshape(-1, 4)
        if self.augment is None or rng is None:
            frame = augment.Frame(np.eye(3), size)
            matrix = augment.fit(frame, fit.size, fit.letterbox, fit.scale).matrix
            batch.images[row] = augment.move_pixels(image, matrix, fit.size)
        else:
            colours, frame = augment.augment(rng, size, boxes, **self.augment)
            # A window of another shape is as large as the input lets it.
            scale = fit.scale if tuple(frame.size) == size else None
            frame = augment.fit(frame, fit.size, fit.letterbox, scale)
            view = augment.snap(frame, size)
            matrix = view.matrix
            augment.draw(batch.images[row], image, view, colours)
        batch.affine[row] = matrix[:2]
        batch.sizes[row] = record.height, record.width
        batch.valid[row] = True
        whole = batch.objects
        objects = Objects(
            boxes=whole.boxes[row],
            labels=whole.labels[row],
            valid=whole.valid[row],
            crowd=whole.crowd[row],
            masks=None if whole.masks is None else whole.masks[row],
            box_masks=None if whole.box_masks is None else whole.box_masks[row],
            keypoints=None if whole.keypoints is None else whole.keypoints[row],
        )
        batch.cut[row], batch.small[row] = self._objects(
            objects, record.annotations, boxes, runs, matrix, fit.size
        )
        if batch.proposals is not None and record.proposals is not None:
            room = jax.tree.map(lambda x: x[row], batch.proposals)
            put_proposals(room, record.proposals, matrix, fit.size)

    def _runs(self, record: Record) -> rle.Runs | None:
        """The masks of a record, decoded as far as to be known sound."""
        if self.mask_stride is None and self.mask_size is None:
            return None
        codes = [a.rle or b"" for a in record.annotations]
        try:
            return rle.runs_of_all(codes, (record.height, record.width))
        except ValueError as error:
            raise Unreadable(f"an annotation {error}") from None

    def _objects(
        self,
        objects: Objects,
        annotations: Sequence[Annotation],
        boxes: np.ndarray,
        runs: rle.Runs | None,
        matrix: np.ndarray,
        size: tuple[int, int],
    ) -> tuple[int, int]:
        """Puts the objects whose centre is in the input there.

        Returns how many were left out for want of room, and how many as too small.
        """
        h, w = size
        moved = augment.move_boxes(boxes, matrix)
        inside = np.flatnonzero(augment.centred(moved, np.array([0, 0, w, h])))
        moved = np.clip(moved, 0, [w, h, w, h])
        seen = (moved[inside, 2:] - moved[inside, :2]).min(axis=1) >= self.min_size
        small = len(inside) - int(seen.sum())
        inside = inside[seen]
        areas = (moved[inside, 2:] - moved[inside, :2]).prod(axis=1)
        largest = np.argsort(-areas, kind="stable")[: self.max_objects]
        cut = len(inside) - len(largest)
        inside = inside[np.sort(largest)]
        chosen = [annotations[i] for i in inside.tolist()]
        n = len(chosen)
        objects.boxes[:n] = moved[inside]
        objects.labels[:n] = [a.label for a in chosen]
        objects.valid[:n] = True
        # Difficult objects of VOC are neither learnt nor learnt against, nor are those
        # without a mask where masks are learnt.
        masked = runs is not None
        objects.crowd[:n] = [
            a.crowd or a.difficult or (masked and a.rle is None) for a in chosen
        ]
        if self.mask_stride is not None:
            grid = objects.masks.shape[1:]
            to_grid = augment.scaling(grid[1] / w, grid[0] / h) @ matrix
            draw_masks(objects.masks, runs, inside, np.tile(to_grid, (n, 1, 1)))
        if self.mask_size is not None:
            to_boxes = spans(moved[inside], self.mask_size) @ matrix
            draw_masks(objects.box_masks, runs, inside, to_boxes)
        if self.keypoints:
            absent = np.zeros((len(self.keypoints), 3))
            given = [absent if a.keypoints is None else a.keypoints for a in chosen]
            objects.keypoints[:n] = augment.move_keypoints(
                np.reshape(given, (n, *absent.shape)), matrix, size, self.keypoints
            )
        return cut, small


def spans(boxes: np.ndarray, side: int) -> np.ndarray:
    """The matrices [n 3 3] that bring each of the boxes [n 4] to `side` x `side`."""
    scale = side / (boxes[:, 2:] - boxes[:, :2])
    found = np.tile(np.eye(3), (len(boxes), 1, 1))
    found[:, [0, 1], [0, 1]] = scale
    found[:, :2, 2] = -boxes[:, :2] * scale
    return found


def put_proposals(
    out: Proposals, boxes: np.ndarray, matrix: np.ndarray, size: tuple[int, int]
) -> None:
    """Puts boxes [m 4], moved by `matrix` and clipped to `size` (h, w), into `out`.

    That is empty. Those of which nothing is left are passed over; the first that fit in
    stay.
    """
    h, w = size
    moved = np.clip(augment.move_boxes(boxes, matrix), 0, [w, h, w, h])
    moved = moved.astype(np.float32)  # a sliver may be gone only then
    seen = moved[(moved[:, 2:] > moved[:, :2]).all(axis=1)][: len(out.valid)]
    out.boxes[: len(seen)] = seen
    out.valid[: len(seen)] = True


def draw_masks(
    out: np.ndarray, runs: rle.Runs, numbers: np.ndarray, matrices: np.ndarray
) -> None:
    """Draws the masks `numbers` [m] of `runs` into zeros `out` [n mh mw], n >= m.

    `matrices` [m 3 3] move them. Bilinear on 0..255, cut in the middle: a smooth
    outline at any scale.
    """
    boxes, linear = runs.boxes[numbers].astype(np.float64), matrices[:, :2, :2]
    h, w = out.shape[1:]
    shift = matrices[:, :2, 2]
    corners = boxes.reshape(-1, 2, 2) @ linear.swapaxes(1, 2) + shift[:, None]
    # A pixel's shade reaches to the centres of its neighbours.
    reach = 1 + np.abs(linear).sum(axis=2)
    parts = np.concatenate(
        [corners.min(axis=1) - reach, corners.max(axis=1) + reach], axis=1
    )
    parts = np.clip(parts, 0, [w, h, w, h]).astype(np.int64)
    # Run-length codes go down the columns: what is stored is the mask's transpose, and
    # OpenCV's pixel centres are whole numbers.
    warps = np.empty((len(numbers), 2, 3))
    warps[:, :, :2] = linear[:, :, ::-1]
    warps[:, :, 2] = np.einsum("mij,mj->mi", linear, boxes[:, :2]) - parts[:, :2]
    warps[:, :, 2] += shift + linear.sum(axis=2) / 2 - 0.5
    for drawn, number, part, warp in zip(
        out, numbers.tolist(), parts.tolist(), warps, strict=False
    ):
        left, top, right, bottom = part
        shades = runs.shades(number)
        if shades.size and left < right and top < bottom:
            size = (right - left, bottom - top)
            moved = cv2.warpAffine(shades, warp, size, flags=cv2.INTER_LINEAR)
            drawn[top:bottom, left:right] = moved > 127
