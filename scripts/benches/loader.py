"""The input pipeline of the COCO recipe."""

import os
import pathlib
import statistics

import numpy as np

from benches.timing import Row, seconds

ROOT = pathlib.Path(__file__).resolve().parents[2]


def coco_photographs():
    """The records of coco_cc with their encoded images in memory."""
    from detjax.data.formats import coco

    folder = pathlib.Path(os.environ.get("DETJAX_DATA", ROOT / "../shared/data"))
    folder = folder.resolve() / "coco_cc"
    labels = folder / "annotations" / "instances_train2017.json"
    read = coco.read_splits(splits={"train": labels}, images=folder / "images")
    for record in read["train"].records:
        record.image = record.path.read_bytes()
    return read["train"].records


def loader():
    """ms an image of the COCO recipe's input pipeline at batch 8, on the 26 photographs
    of DETJAX_DATA's coco_cc, against OpenCV decoding and resizing alone on one thread,
    divided by the cores, and against a straightforward pipeline in PIL"""
    import cv2

    from benches import pil_pipeline
    from configs import yolact_r101_coco
    from detjax.data import loader as loaders
    from detjax.tasks.detection.targets import Targets

    records, cores = coco_photographs(), len(os.sched_getaffinity(0))
    section = yolact_r101_coco.get_config().data
    size, stride = tuple(section.size), section.mask_stride
    recipe = section.augment.to_dict()
    targets = Targets(section.max_objects, mask_stride=stride)
    prepare = loaders.Prepare(size, targets, augment=recipe)

    def ours(batches=26):
        stream = iter(loaders.train_loader(records, prepare, batch_size=8))
        for _ in range(4):  # until as many are under way as will be at the end
            next(stream)
        taken = seconds(lambda: [next(stream) for _ in range(batches)])
        # Those under way are finished before anything else is timed.
        stream.close()
        return taken / batches / 8

    def opencv(rounds=4):
        cv2.setNumThreads(1)
        flags = cv2.IMREAD_COLOR
        files = [np.frombuffer(r.image, np.uint8) for r in records] * rounds

        def one_by_one():
            for file in files:
                cv2.resize(cv2.imdecode(file, flags), size[::-1])

        return seconds(one_by_one) / len(files) / cores

    def pil(batches=13):
        run = pil_pipeline.stream(
            records, size, section.max_objects, stride, batch_size=8, threads=cores
        )
        for _ in range(4):
            next(run)
        taken = seconds(lambda: [next(run) for _ in range(batches)])
        run.close()
        return taken / batches / 8

    rounds = [(ours(), opencv(), pil()) for _ in range(7)]
    ours_ms, opencv_ms, pil_ms = (
        1e3 * statistics.median(x) for x in zip(*rounds, strict=True)
    )
    what = f"550 px, batch 8, {cores} threads"
    yield Row("loader", what, ours_ms, "OpenCV decode+resize / core", opencv_ms)
    yield Row("loader", what, ours_ms, "PIL, the same transforms", pil_ms)
