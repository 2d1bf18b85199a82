"""Fills one row of a batch from a record: decode, augment, warp, pad."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import cv2
import jax
import numpy as np

from detjax.data import augment, pixels
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
    max_proposals  padded size p, 0 for none; the first p inside the input are kept
    """

    size: tuple[int, int] | None
    targets: Any
    letterbox: bool = False
    augment: Mapping[str, Any] | None = None
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
            self, augment=None, targets=self.targets.evaluation()
        )

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
        image = read(record)
        truth = self.targets.read(record)
        size, images = image.shape[:2], batch.inputs.images
        if self.augment is None or rng is None:
            frame = augment.Frame(np.eye(3), size)
            matrix = augment.resize(frame, fit.size, fit.letterbox, fit.scale).matrix
            images[row] = augment.move_pixels(image, matrix, fit.size)
        else:
            colours, frame = augment.augment(rng, size, truth.boxes, **self.augment)
            # A crop of another aspect ratio is scaled to fit the input.
            scale = fit.scale if tuple(frame.size) == size else None
            frame = augment.resize(frame, fit.size, fit.letterbox, scale)
            seen = augment.snap(frame, size)
            matrix = seen.matrix
            augment.draw(images[row], image, seen, colours)
        view = batch.inputs.view
        view.affine[row] = matrix[:2]
        view.sizes[row] = record.height, record.width
        view.valid[row] = True
        target = jax.tree.map(lambda x: x[row], batch.target)
        counts = self.targets.fill(target, truth, matrix, fit.size)
        for name, count in counts.items():
            batch.counts[name][row] = count
        if batch.inputs.proposals is not None and record.proposals is not None:
            room = jax.tree.map(lambda x: x[row], batch.inputs.proposals)
            put_proposals(room, record.proposals, matrix, fit.size)


def put_proposals(
    out: Proposals, boxes: np.ndarray, matrix: np.ndarray, size: tuple[int, int]
) -> None:
    """Writes boxes [m 4], warped by `matrix` and clipped to `size` (h, w), to `out`.

    `out` is empty. Boxes that vanish are dropped; the first ones that fit are kept.
    """
    h, w = size
    moved = np.clip(augment.move_boxes(boxes, matrix), 0, [w, h, w, h])
    moved = moved.astype(np.float32)  # a sliver may vanish only here
    seen = moved[(moved[:, 2:] > moved[:, :2]).all(axis=1)][: len(out.valid)]
    out.boxes[: len(seen)] = seen
    out.valid[: len(seen)] = True
