"""Fills one row of a batch from a record: decode, augment, warp, pad."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from detjax.data import augment, frames, reduced, views
from detjax.data.blends import Blends
from detjax.data.frames import Seen, scaling
from detjax.data.mosaic import Mosaic, interleaved
from detjax.data.records import Record, Unreadable
from detjax.data.sizing import Resize
from detjax.errors import UserError
from detjax.types import Batch, Inputs, Proposals, View


def decode(image: bytes) -> np.ndarray:
    """RGB uint8 [h w 3] of an encoded image, as stored.

    Data sets store images upright, so EXIF rotation does not apply. Raises UserError if
    decoding fails.
    """
    return reduced.decode(image)


def read(record: Record, by: int = 1) -> np.ndarray:
    """The image [h w 3] of a record, reduced `by` 1, 2, 4 or 8. Raises Unreadable."""
    full = record.height, record.width
    try:
        image = reduced.decode(record.image, by)
        if image.shape[:2] != reduced.size(full, by):
            h, w = image.shape[:2] if by == 1 else decode(record.image).shape[:2]
            raise Unreadable(
                f"the image is {h} x {w} pixels (height x width), its record says "
                f"{full[0]} x {full[1]}"
            )
    except ValueError as error:
        raise Unreadable(str(error)) from None
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
    several        which rows hold four pictures, or two; None for none
    max_proposals  padded size p, 0 for none; the first p inside the input are kept
    reduced        decode pictures smaller where that is enough; see `data.reduced`
    """

    size: tuple[int, int] | None
    targets: Any
    letterbox: bool = False
    augment: Mapping[str, Any] | None = None
    several: Mosaic | Blends | None = None
    max_proposals: int = 0
    reduced: bool = True

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
            self, augment=None, several=None, targets=self.targets.evaluation()
        )

    def unaugmented(self) -> "Prepare":
        """The same without augmentation, for the loss of evaluation images."""
        return dataclasses.replace(self, augment=None, several=None)

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

    def clear(self, batch: Batch, row: int) -> None:
        """Makes a row of `batch` as `empty` has it, but for its image."""
        self.targets.clear(jax.tree.map(lambda x: x[row], batch.target))
        view, proposals = batch.inputs.view, batch.inputs.proposals
        view.affine[row], view.sizes[row], view.valid[row] = np.eye(2, 3), 0, False
        if proposals is not None:
            proposals.boxes[row], proposals.valid[row] = 0, False
        batch.index[row], batch.skipped[row] = 0, -1
        for count in batch.counts.values():
            count[row] = 0

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
        full = record.height, record.width
        if self.augment is None or rng is None:
            truth = self._truth(record)
            frame = frames.Frame(np.eye(3), full)
            matrix = frames.resize(frame, fit.size, fit.letterbox, fit.scale).matrix
            image, by = self._read(record, matrix)
            moved = views.move_pixels(
                image, matrix @ scaling(by, by), fit.size, fit.fill
            )
            batch.inputs.images[row] = moved
        else:
            truth, matrix = self._drawn(batch.inputs.images[row], record, fit, rng)
        self._put_view(batch, row, matrix, full)
        seen = Seen(truth, matrix, whole(fit.size))
        self._put_truth(batch, row, [seen], [record.proposals], fit.size)

    def fill_several(
        self,
        batch: Batch,
        row: int,
        pictures: Iterable[tuple[Record, Resize]],
        rngs: Iterable[np.random.Generator],
    ) -> None:
        """Writes the records of a mosaic, or of a blend, into an empty `row`.

        `rngs` are one more than `pictures`: what augments each, and the layout's.
        Raises UserError, Unreadable, and leaves the row without a truth.
        """
        *each, last = rngs
        size = batch.inputs.images.shape[1:3]
        if isinstance(self.several, Blends):
            blend = self.several.drawn(last, size)
            self._fill_blend(batch, row, pictures, each, blend)
        else:
            assert self.several is not None
            layout = self.several.layout(last, size)
            self._fill_mosaic(batch, row, pictures, each, layout)

    def _fill_blend(self, batch, row, pictures, each, blend) -> None:
        """Two records, one upon the other."""
        image = batch.inputs.images[row]
        size, second = image.shape[:2], np.empty_like(image)
        seen, shares = [], (blend.share, 1 - blend.share)
        for out, (record, fit), rng, share in zip(
            (image, second), pictures, each, shares, strict=True
        ):
            truth, matrix = self._drawn(out, record, fit, rng)
            seen.append(Seen(truth, matrix, whole(size), share))
        blend.into(image, second)
        self._put_view(batch, row, np.eye(3), size)
        self._put_truth(batch, row, seen, [None, None], size)

    def _fill_mosaic(self, batch, row, pictures, each, layout) -> None:
        """Four records side by side."""
        size, images = batch.inputs.images.shape[1:3], batch.inputs.images[row]
        seen, proposed = [], []
        for i, ((record, fit), rng) in enumerate(zip(pictures, each, strict=True)):
            truth, colours, frame = self._augmented(record, rng)
            alone = tuple(frame.size) == (record.height, record.width)
            frame = layout.place(i, frame, fit, alone)
            x1, y1, x2, y2 = layout.windows[i]
            part = images[y1:y2, x1:x2]
            matrix = self._place(part, record, frame, colours, fit.fill)
            matrix = frames.scaling(1, 1, x1, y1) @ matrix
            seen.append(Seen(truth, matrix, np.array([x1, y1, x2, y2])))
            proposed.append(record.proposals)
        # The picture that the row's view is of is the mosaic itself.
        self._put_view(batch, row, np.eye(3), size)
        self._put_truth(batch, row, seen, proposed, size)

    def _drawn(self, out, record, fit, rng) -> tuple[Any, np.ndarray]:
        """Fills `out` with a record's augmented image; its truth, and the matrix.

        Raises Unreadable.
        """
        truth, colours, frame = self._augmented(record, rng)
        # A crop of another aspect ratio is scaled to fit the input.
        alone = tuple(frame.size) == (record.height, record.width)
        scale = fit.scale if alone else None
        frame = frames.resize(frame, fit.size, fit.letterbox, scale)
        return truth, self._place(out, record, frame, colours, fit.fill)

    def _augmented(self, record: Record, rng: np.random.Generator):
        """A record's truth, and how it is drawn. Raises Unreadable."""
        settings = self.augment or {}
        truth = self._truth(record, outlines=augment.turns(settings))
        full = record.height, record.width
        return truth, *augment.augment(rng, full, truth.boxes, **settings)

    def _truth(self, record: Record, **how: Any) -> Any:
        """The truth of a record. Raises Unreadable, of the image first."""
        try:
            if min(record.height, record.width) < 1:
                raise Unreadable("its record has no size")
            return self.targets.read(record, **how)
        except Unreadable:
            read(record)
            raise

    def _read(self, record: Record, matrix: np.ndarray) -> tuple[np.ndarray, int]:
        """The image of a record to be drawn by `matrix`, and by how much it is reduced.

        Raises Unreadable.
        """
        by = reduced.factor(matrix) if self.reduced else 1
        return read(record, by), by

    def _place(self, out, record, frame, colours, fill) -> np.ndarray:
        """Fills `out` with a record's image; the matrix that it was drawn by.

        See `views.place`. Raises Unreadable.
        """
        image, by = self._read(record, frame.matrix)
        # Each pixel of the image is a block of as many original ones along each side.
        seen = frame._replace(matrix=frame.matrix @ scaling(by, by))
        matrix = views.place(out, image, seen, colours, fill)
        return matrix @ scaling(1 / by, 1 / by)

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
