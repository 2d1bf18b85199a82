"""The input pipeline of the COCO recipe against OpenCV and PIL.

Images are timed from the arrival of one batch to that of another. The peer decodes and
resizes the same files on one core, divided by the cores that are used.
"""

import os
import pathlib
import statistics
import sys

import numpy as np

from benches.timing import Row, seconds
from detjax.data import crew

ROOT = pathlib.Path(__file__).resolve().parents[2]
BATCH = 8


def photographs():
    """The records of coco_cc with their encoded images in memory."""
    from detjax.data.formats import coco

    folder = pathlib.Path(os.environ.get("DETJAX_DATA", ROOT / "../shared/data"))
    folder = folder.resolve() / "coco_cc"
    labels = folder / "annotations" / "instances_train2017.json"
    read = coco.read_splits(splits={"train": labels}, images=folder / "images")
    for record in read["train"].records:
        record.image = record.path.read_bytes()
    return read["train"].records


def recipe(reduced=True):
    """What configs/yolact_r101_coco.py does to an image."""
    from configs import yolact_r101_coco
    from detjax.data import loader
    from detjax.tasks.detection.targets import Targets

    section = yolact_r101_coco.get_config().data
    targets = Targets(
        section.max_objects,
        mask_stride=section.mask_stride,
        min_size=section.min_size,
    )
    return loader.Prepare(
        tuple(section.size),
        targets,
        augment=section.augment.to_dict(),
        reduced=reduced,
    )


def per_image(batches, count):
    """Seconds an image of `count` batches, once as many are ahead as will be."""
    for _ in range(4):
        next(batches)

    def take():
        # Not into a list: a run lets go of its batches too.
        for _ in range(count):
            next(batches)

    return seconds(take) / count / BATCH


def ours(records, prepare, count=26, **how):
    from detjax.data import loader

    stream = iter(loader.train_loader(records, prepare, batch_size=BATCH, **how))
    try:
        return per_image(stream, count)
    finally:
        # Those under way are finished before anything else is timed.
        stream.close()


def opencv(records, size, rounds=3):
    """Seconds an image on one core: decoding, and decoding with resizing."""
    import cv2

    cv2.setNumThreads(1)
    files = [np.frombuffer(r.image, np.uint8) for r in records] * rounds

    def decode():
        for file in files:
            cv2.imdecode(file, cv2.IMREAD_COLOR)

    def both():
        for file in files:
            cv2.resize(cv2.imdecode(file, cv2.IMREAD_COLOR), size[::-1])

    return seconds(decode) / len(files), seconds(both) / len(files)


def pil(records, prepare, cores, count=13):
    from benches import pil_pipeline

    targets = prepare.targets
    run = pil_pipeline.stream(
        records,
        prepare.size,
        targets.max_objects,
        targets.mask_stride,
        batch_size=BATCH,
        threads=cores,
    )
    try:
        return per_image(run, count)
    finally:
        run.close()


def loader(rounds=5):
    """an image of the COCO recipe's input pipeline at batch 8, on the 26 photographs of
    DETJAX_DATA's coco_cc, by threads and by worker processes, against OpenCV decoding
    and resizing alone on as many cores, and against the same transforms in PIL"""
    records, prepare = photographs(), recipe()
    cores = crew.cores()
    ways = [(f"{n} thread{'s'[: n > 1]}", n, {"threads": n}) for n in (1, 2)]
    several = sorted({2, cores - 1, cores} - {0, 1})
    ways += [(f"{n} workers", n, {"workers": n}) for n in several if n <= cores]
    found = [
        (
            opencv(records, prepare.size),
            pil(records, prepare, cores),
            [ours(records, prepare, **how) for _, _, how in ways],
        )
        for _ in range(rounds)
    ]
    decode, both = (1e3 * statistics.median(r[0][i] for r in found) for i in range(2))
    for i, (what, used, _) in enumerate(ways):
        taken = 1e3 * statistics.median(r[2][i] for r in found)
        print(
            f"loader: {what}: {1e3 / taken:.0f} images/s, of which decoding takes "
            f"{decode / used / taken:.0%} of the time",
            file=sys.stderr,
        )
        size = f"550 px, batch {BATCH}, {what}"
        yield Row(
            "loader", size, taken, "OpenCV decode+resize / core", both / used, images=1
        )
    threads = 1e3 * statistics.median(r[2][1] for r in found)
    slow = 1e3 * statistics.median(r[1] for r in found)
    size = f"550 px, batch {BATCH}, 2 threads"
    yield Row("loader", size, threads, "PIL, the same transforms", slow, images=1)
