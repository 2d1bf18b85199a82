"""Fills one row of a batch from a record: decode, augment, warp, pad."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import cv2
import jax
import numpy as np

from detjax.data import augment, frames, pixels, views
from detjax.data.frames import Seen
from detjax.data.mosaic import Mosaic, interleaved
from detjax.data.plan import Resize
from detjax.data.records import Record, Unreadable
from detjax.errors import UserError
from detjax.types import Batch, Inputs, Proposals, View


def decode(image: bytes) -> np.ndarray:
    """RGB uint8 [h w 3] of an encoded image, as stored.

    Data sets store images upright, so EXIF rotation does not apply. Raises UserError if
    decoding fails.
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


def empty_inputs(count: int, size: tuple[int, int], max_proposals: int = 0) -> Inputs:
    """Inputs of `count` unfilled rows: images are uninitialised, none is valid."""
    h, w = size
    return Inputs(
        images=np.empty((count, h, w, 3), np.uint8),
        view=View(
            affine=np.tile(np.eye(2, 3, dtype=np.float32), (count, 1, 1)),
            sizes=np.zeros((count, 2), np.int32),
            valid=np.zeros(count, bool),
        ),
        proposals=empty_proposals(count, max_proposals) if max_proposals else None,
    )


def empty_proposals(count: int, most: int) -> Proposals:
    """Empty padded proposals: up to `most` for each of `count` images."""
    return Proposals(
        boxes=np.zeros((count, most, 4), np.float32),
        valid=np.zeros((count, most), bool),
    )


@dataclasses.dataclass(frozen=True)
class Prepare:
    """A record as a `Batch` of one without its leading axis, or as a row of a batch.

    size           (h, w) of the network's input, unless a call gives its own
    targets        from `Task.targets`: the padded ground truth
    letterbox      keep the aspect ratio and pad, instead of stretching
    augment        keywords of `augment.augment`; None disables augmentation
    mosaic         which rows hold four pictures; None for none
    max_proposals  padded size p, 0 for none; the first p inside the input are kept
    """

    size: tuple[int, int] | None
    targets: Any
    letterbox: bool = False
    augment: Mapping[str, Any] | None = None
    mosaic: Mosaic | None = None
    max_proposals: int = 0

    def __call__(self, record: Record, rng: np.random.Generator | None = None) -> Batch:
        batch = self.empty(1, self.size)
        try:
            self.fill(batch, 0, record, Resize(self.size, self.letterbox), rng)
        except Unreadable as error:
            raise UserError(
                f"{record.file_name} (image {record.id}): {error}"
            ) from None
        return jax.tree.map(lambda x: x[0], batch)

    def evaluation(self) -> "Prepare":
        """The evaluation variant: no augmentation, and only what evaluation reads."""
        return dataclasses.replace(
            self, augment=None, mosaic=None, targets=self.targets.evaluation()
        )

    def unaugmented(self) -> "Prepare":
        """The same without augmentation, for the loss of evaluation images."""
        return dataclasses.replace(self, augment=None, mosaic=None)

    def empty(self, count: int, size: tuple[int, int]) -> Batch:
        """A batch of `count` unfilled rows, for images of `size` (h, w)."""
        target, counts = self.targets.empty(count, size)
        return Batch(
            inputs=empty_inputs(count, size, self.max_proposals),
            target=target,
            index=np.zeros(count, np.int32),
            counts=counts,
            skipped=np.full(count, -1, np.int32),
        )

    def fill(
        self,
        batch: Batch,
        row: int,
        record: Record,
        fit: Resize,
        rng: np.random.Generator | None = None,
    ) -> None:
        """Writes `record` into an empty `row` of `batch`, resized by `fit`.

        Raises Unreadable and leaves the row empty.
        """
        if self.augment is None or rng is None:
            image, truth = read(record), self.targets.read(record)
            frame = frames.Frame(np.eye(3), image.shape[:2])
            matrix = frames.resize(frame, fit.size, fit.letterbox, fit.scale).matrix
            batch.inputs.images[row] = views.move_pixels(image, matrix, fit.size)
        else:
            image, truth, colours, frame = self._augmented(record, rng)
            # A crop of another aspect ratio is scaled to fit the input.
            scale = fit.scale if tuple(frame.size) == image.shape[:2] else None
            frame = frames.resize(frame, fit.size, fit.letterbox, scale)
            matrix = views.place(batch.inputs.images[row], image, frame, colours)
        self._put_view(batch, row, matrix, (record.height, record.width))
        seen = Seen(truth, matrix, whole(fit.size))
        self._put_truth(batch, row, [seen], [record.proposals], fit.size)

    def fill_mosaic(
        self,
        batch: Batch,
        row: int,
        pictures: Iterable[tuple[Record, Resize]],
        rngs: Iterable[np.random.Generator],
    ) -> None:
        """Writes four records into an empty `row` of `batch`.

        `rngs` are five: for each of `pictures` what augments it, and for the layout.
        Raises UserError, Unreadable, and leaves the row without a truth.
        """
        assert self.mosaic is not None
        *each, last = rngs
        size, images = batch.inputs.images.shape[1:3], batch.inputs.images[row]
        layout = self.mosaic.layout(last, size)
        seen, proposed = [], []
        for i, ((record, fit), rng) in enumerate(zip(pictures, each, strict=True)):
            image, truth, colours, frame = self._augmented(record, rng)
            alone = tuple(frame.size) == image.shape[:2]
            frame = layout.place(i, frame, fit, alone)
            x1, y1, x2, y2 = layout.windows[i]
            part = images[y1:y2, x1:x2]
            matrix = views.place(part, image, frame, colours)
            matrix = frames.scaling(1, 1, x1, y1) @ matrix
            seen.append(Seen(truth, matrix, np.array([x1, y1, x2, y2])))
            proposed.append(record.proposals)
        # The picture that the row's view is of is the mosaic itself.
        self._put_view(batch, row, np.eye(3), size)
        self._put_truth(batch, row, seen, proposed, size)

    def _augmented(self, record: Record, rng: np.random.Generator):
        """A record's image and truth, and how they are drawn. Raises Unreadable."""
        settings = self.augment or {}
        image = read(record)
        truth = self.targets.read(record, outlines=bool(settings.get("rotate")))
        found = augment.augment(rng, image.shape[:2], truth.boxes, **settings)
        return image, truth, *found

    def _put_view(
        self, batch: Batch, row: int, matrix: np.ndarray, size: tuple[int, int]
    ) -> None:
        view = batch.inputs.view
        view.affine[row], view.sizes[row], view.valid[row] = matrix[:2], size, True

    def _put_truth(self, batch, row, seen, proposed, size) -> None:
        """Writes the truth and the proposals of what is `seen`."""
        target = jax.tree.map(lambda x: x[row], batch.target)
        counts = self.targets.fill(target, seen, size)
        for name, count in counts.items():
            batch.counts[name][row] = count
        if batch.inputs.proposals is not None:
            room = jax.tree.map(lambda x: x[row], batch.inputs.proposals)
            moved = [
                moved_proposals(boxes, one.matrix, one.window)
                for boxes, one in zip(proposed, seen, strict=True)
                if boxes is not None
            ]
            if moved:
                put_boxes(room, interleaved(moved))


def whole(size: tuple[int, int]) -> np.ndarray:
    """The window [4] that is all of an input of `size` (h, w)."""
    return np.array([0, 0, size[1], size[0]])


def put_proposals(
    out: Proposals, boxes: np.ndarray, matrix: np.ndarray, size: tuple[int, int]
) -> None:
    """Writes boxes [m 4], warped by `matrix` and clipped to `size` (h, w), to `out`.

    `out` is empty. Boxes that vanish are dropped; the first ones that fit are kept.
    """
    put_boxes(out, moved_proposals(boxes, matrix, whole(size)))


def put_boxes(out: Proposals, boxes: np.ndarray) -> None:
    """Writes the first of boxes [m 4] that fit into `out`, which is empty."""
    boxes = boxes[: len(out.valid)]
    out.boxes[: len(boxes)] = boxes
    out.valid[: len(boxes)] = True


def moved_proposals(
    boxes: np.ndarray, matrix: np.ndarray, window: np.ndarray
) -> np.ndarray:
    """Boxes [m 4], warped by `matrix` and clipped to `window` [4]; what is left."""
    moved = np.clip(
        frames.move_boxes(boxes, matrix), window[[0, 1, 0, 1]], window[[2, 3, 2, 3]]
    )
    moved = moved.astype(np.float32)  # a sliver may vanish only here
    return moved[(moved[:, 2:] > moved[:, :2]).all(axis=1)]
