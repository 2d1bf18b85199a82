"""From records to batches: decode, augment, move, pad, with grain.

Everything random comes from grain's per-example generator, so a stream is a function of
(seed, position) alone: the number of threads and workers changes nothing, and a
checkpoint of the position is a checkpoint of the loader.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import cv2
import grain
import jax
import numpy as np
from absl import flags

from detjax.data import augment
from detjax.data.records import Record
from detjax.ops import masks
from detjax.types import Batch, Objects


def decode(image: bytes) -> np.ndarray:
    """RGB uint8 [h w 3] of an encoded image, as stored: EXIF does not rotate it.

    Annotations are in stored pixels. Raises ValueError where nothing can be decoded.
    """
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(np.frombuffer(image, np.uint8), flags)
    if pixels is None:
        raise ValueError("the image cannot be decoded")
    return pixels


@dataclasses.dataclass(frozen=True)
class Prepare:
    """A record as a `Batch` of one without its leading axis.

    size         (h, w) of the network's input
    max_objects  n of the padding; what is beyond it is cut off and counted, the
                 smallest objects first
    mask_stride  None for no masks, else input pixels a mask pixel
    letterbox    keep the aspect ratio and fill up, instead of stretching
    augment      keywords of `augment.augment`; None where nothing is to be random
    """

    size: tuple[int, int]
    max_objects: int
    mask_stride: int | None = None
    letterbox: bool = False
    augment: Mapping[str, Any] | None = None

    def __call__(self, record: Record, rng: np.random.Generator | None = None) -> Batch:
        try:
            image = decode(record.image)
        except ValueError as error:
            raise ValueError(
                f"{record.file_name} (image {record.id}): {error}"
            ) from None
        frame = augment.Frame(np.eye(3), image.shape[:2])
        boxes = np.array([a.box for a in record.annotations], np.float64).reshape(-1, 4)
        if self.augment is not None and rng is not None:
            image, frame = augment.augment(rng, image, boxes, **self.augment)
        frame = augment.fit(frame, self.size, self.letterbox)
        objects, cut = self._objects(record, boxes, frame.matrix)
        return Batch(
            images=augment.move_pixels(image, frame.matrix, self.size),
            objects=objects,
            ids=np.int32(record.id),
            affine=frame.matrix[:2].astype(np.float32),
            sizes=np.array([record.height, record.width], np.int32),
            valid=np.True_,
            cut=np.int32(cut),
        )

    def _objects(self, record, boxes, matrix) -> tuple[Objects, int]:
        """The objects whose centre is in the frame, padded, and how many were cut."""
        h, w = self.size
        moved = augment.move_boxes(boxes, matrix)
        inside = np.flatnonzero(augment.centred(moved, np.array([0, 0, w, h])))
        moved = np.clip(moved, 0, [w, h, w, h])
        areas = (moved[inside, 2:] - moved[inside, :2]).prod(axis=1)
        largest = np.argsort(-areas, kind="stable")[: self.max_objects]
        cut = len(inside) - len(largest)
        inside = inside[np.sort(largest)]
        chosen = [record.annotations[i] for i in inside]
        n = len(chosen)
        objects = Objects(
            boxes=np.zeros((self.max_objects, 4), np.float32),
            labels=np.zeros(self.max_objects, np.int32),
            valid=np.arange(self.max_objects) < n,
            crowd=np.zeros(self.max_objects, bool),
            masks=self._masks(record, chosen, matrix),
        )
        objects.boxes[:n] = moved[inside]
        objects.labels[:n] = [a.label for a in chosen]
        # Difficult objects of VOC are neither learnt nor learnt against, nor are those
        # without a mask where masks are learnt.
        masked = self.mask_stride is not None
        objects.crowd[:n] = [
            a.crowd or a.difficult or (masked and a.rle is None) for a in chosen
        ]
        return objects, cut

    def _masks(self, record, chosen, matrix) -> np.ndarray | None:
        """Masks [n mh mw] of the chosen annotations, or None where none are wanted."""
        if self.mask_stride is None:
            return None
        h, w = self.size
        grid = -(-h // self.mask_stride), -(-w // self.mask_stride)
        drawn = np.zeros((self.max_objects, *grid), np.uint8)
        to_grid = augment.scaling(grid[1] / w, grid[0] / h)
        matrix = to_grid @ matrix
        size = [record.height, record.width]
        for i, annotation in enumerate(chosen):
            if annotation.rle is None:
                continue
            # Bilinear on 0..255, cut in the middle: a smooth outline at any scale.
            full = masks.decode_rle({"size": size, "counts": annotation.rle})
            shades = full.view(np.uint8) * np.uint8(255)
            drawn[i] = augment.move_pixels(shades, matrix, grid, fill=0) > 127
        return drawn


def stack(examples) -> Batch:
    """Examples as one batch."""
    return jax.tree.map(lambda *x: np.stack(x), *examples)


def fill_up(batch: Batch, count: int) -> Batch:
    """`batch` with its last image repeated up to `count`, the copies not `valid`."""
    missing = count - len(batch.ids)
    if not missing:
        return batch
    padded = jax.tree.map(
        lambda x: np.concatenate([x, np.repeat(x[-1:], missing, axis=0)]), batch
    )
    padded.valid[-missing:] = False
    return padded


def train_loader(
    source,
    prepare: Prepare,
    *,
    batch_size: int,
    seed: int = 0,
    threads: int = 2,
    workers: int = 0,
) -> grain.IterDataset:
    """An endless stream of shuffled, augmented batches of this process's share.

    `batch_size` counts the images of all processes. `threads` decode in this process;
    `workers`, where set, are processes that do it instead.
    """
    local = share(batch_size)
    dataset = (
        grain.MapDataset.source(source)
        .seed(seed)
        .shuffle()
        .repeat()[jax.process_index() :: jax.process_count()]
        .random_map(prepare)
        .batch(local, batch_fn=stack)
        .to_iter_dataset(
            grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
        )
    )
    if workers:
        # grain asks absl's flags, which a notebook has not parsed.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        options = grain.MultiprocessingOptions(workers, per_worker_buffer_size=2)
        dataset = dataset.mp_prefetch(options)
    return dataset


def eval_loader(source, prepare: Prepare, *, batch_size: int, threads: int = 2):
    """Every image of this process's share once, in order, the last batch filled up."""
    local = share(batch_size)
    prepare = dataclasses.replace(prepare, augment=None)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    return (
        grain.MapDataset.source(source)[jax.process_index() :: jax.process_count()]
        .map(prepare)
        .batch(local, batch_fn=stack)
        .map(lambda batch: fill_up(batch, local))
        .to_iter_dataset(options)
    )


def share(batch_size: int) -> int:
    """This process's part of a global batch.

    Raises ValueError where the batch does not divide among the processes.
    """
    processes = jax.process_count()
    if batch_size % processes:
        raise ValueError(
            f"data.batch_size={batch_size} does not divide among {processes} "
            "processes; make it a multiple"
        )
    return batch_size // processes
