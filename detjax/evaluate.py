"""A model's COCO metrics on a data set."""

import dataclasses
import functools
import json
import pathlib
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np
import tqdm

from detjax import cluster, files, sharding
from detjax.data.records import Record
from detjax.eval import coco
from detjax.ops import boxes
from detjax.predict import in_original, to_results
from detjax.preemption import Interrupted
from detjax.sharding import Layout
from detjax.types import Batch, Detections, Model


def truths_of(records: Iterable[Record]) -> coco.Truths:
    """What `records` hold, as the metric wants it; it ignores difficult objects."""
    rows, rles, points = [], [], []
    for record in records:
        size = [record.height, record.width]
        for a in record.annotations:
            x1, y1, x2, y2 = a.box
            box = (x1, y1, x2 - x1, y2 - y1)
            rows.append((record.id, a.label, *box, a.area, a.crowd, a.difficult))
            rles.append({"size": size, "counts": a.rle} if a.rle else None)
            points.append(a.keypoints)
    table = np.array(rows, np.float64).reshape(-1, 9)
    return coco.Truths(
        image_ids=table[:, 0].astype(np.int64),
        labels=table[:, 1].astype(np.int64),
        boxes=table[:, 2:6],
        areas=table[:, 6],
        crowd=table[:, 7].astype(bool),
        rles=complete(rles),
        ignore=table[:, 8].astype(bool),
        keypoints=points_of(points),
    )


def points_of(keypoints: list[np.ndarray | None]) -> np.ndarray | None:
    """Keypoints [m k 3], not visible where an object has none; None where none has."""
    known = [points for points in keypoints if points is not None]
    if not known:
        return None
    absent = np.zeros_like(known[0])
    rows = [absent if points is None else points for points in keypoints]
    return np.array(rows, np.float64)


def complete(rles: list) -> list | None:
    """`rles` if every object has one; None, said aloud where only some have."""
    have = sum(r is not None for r in rles)
    if have == len(rles):
        return rles or None
    if have:
        print(
            f"warning: {len(rles) - have} of {len(rles)} annotations have no mask, so "
            "masks are not evaluated",
            file=sys.stderr,
        )
    return None


def results_of(
    rows: Sequence[dict[str, Any]], category_ids: Sequence[int], kind: str = "bbox"
) -> coco.Results:
    """COCO results entries as the metric wants them; labels count `category_ids`.

    Masks (`kind` "segm") rank by their `mask_score` where they have one.
    """
    score = (
        "mask_score" if kind == "segm" and rows and "mask_score" in rows[0] else "score"
    )
    label = {number: i for i, number in enumerate(category_ids)}
    return coco.Results(
        image_ids=np.array([r["image_id"] for r in rows], np.int64),
        labels=np.array([label[r["category_id"]] for r in rows], np.int64),
        scores=np.array([r[score] for r in rows], np.float64),
        boxes=np.array([r["bbox"] for r in rows], np.float64).reshape(-1, 4),
        rles=[r["segmentation"] for r in rows]
        if rows and "segmentation" in rows[0]
        else None,
        keypoints=np.array(
            [np.reshape(r["keypoints"], (-1, 3)) for r in rows], np.float64
        )
        if rows and "keypoints" in rows[0]
        else None,
    )


def detect_all(
    model: Model,
    params: Any,
    state: Any,
    loader: Iterable,
    *,
    category_ids: Sequence[int],
    layout: Layout | None = None,
    stop: Callable[[], bool] = lambda: False,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """COCO results entries of every valid image; `category_ids` are those of labels.

    Every process reads its share of the images and returns the entries of all. Raises
    Interrupted as soon as `stop()` holds.
    """
    layout = layout or sharding.make()
    params, state = layout.keep((params, state))
    rows: list[dict[str, Any]] = []

    predict = predictor(model.predict, layout)
    quiet = not progress or not cluster.primary()
    for batch in tqdm.tqdm(loader, disable=quiet, desc="evaluate", unit="batch"):
        if stop():
            raise Interrupted
        seen = filled_up(dataclasses.replace(batch, objects=None), layout.local_shares)
        found = layout.local(predict(params, state, layout.put(seen)))
        for i in np.flatnonzero(batch.valid):
            one = in_original(
                jax.tree.map(lambda x, i=i: x[i], found),
                batch.affine[i],
                tuple(batch.sizes[i].tolist()),
                batch.images.shape[1:3],
            )
            rows += to_results(one, int(batch.ids[i]), category_ids)
    return cluster.gather(rows)


@functools.lru_cache(maxsize=8)
def predictor(
    predict: Callable[..., Detections], layout: Layout
) -> Callable[[Any, Any, Batch], Detections]:
    """A model's `predict` for a batch on `layout`, (params, state, batch).

    The same one for the same two, so that only the first evaluation compiles.
    """

    @functools.partial(jax.jit, out_shardings=layout.by_image())
    def call(params, state, seen):
        window = functools.partial(boxes.window, network_size=seen.images.shape[1:3])
        windows = jax.vmap(window)(seen.affine, seen.sizes)
        with layout.rows():
            return predict(
                layout.gather(params), state, seen.images, windows, seen.proposals
            )

    return call


def filled_up(batch: Batch, shares: int) -> Batch:
    """`batch` with the last image repeated, until images divide among `shares`."""
    missing = -len(batch.ids) % shares
    return jax.tree.map(
        lambda x: np.concatenate([x, np.repeat(x[-1:], missing, axis=0)]), batch
    )


def evaluate(
    rows: Sequence[dict[str, Any]],
    records: Sequence[Record],
    *,
    classes: Sequence[str],
    category_ids: Sequence[int],
    max_detections: Sequence[int] = (1, 10, 100),
    sigmas: Sequence[float] = coco.COCO_SIGMAS,
) -> dict[str, float]:
    """Flat COCO metrics of results `rows` on `records`: 'bbox/AP', 'segm/AP50', ...

    Masks and keypoints are evaluated where both sides have them, no `rows` being all
    kinds; keypoints need as many `sigmas`, and at most 20 detections of an image and
    class count there.
    'bbox/AP/<class>' follows for each class of more than one. Undefined numbers are -1,
    as COCO has it.
    """
    truths = truths_of(records)
    ids = [record.id for record in records]
    kinds = ["bbox"]
    if truths.rles is not None and (not rows or "segmentation" in rows[0]):
        kinds.append("segm")
    if truths.keypoints is not None and (not rows or "keypoints" in rows[0]):
        kinds.append("keypoints")
    metrics: dict[str, float] = {}
    for kind in kinds:
        results = results_of(rows, category_ids, kind)
        asked: dict[str, Any] = {
            "image_ids": ids,
            "num_classes": len(classes),
            "kind": kind,
            "max_detections": tuple(max_detections),
        }
        if kind == "keypoints":
            asked |= {"max_detections": None, "sigmas": tuple(sigmas)}
        summary = coco.evaluate(truths, results, **asked)
        metrics |= {f"{kind}/{name}": value for name, value in summary.items()}
        if len(classes) > 1:
            each = coco.per_class(truths, results, **asked)
            metrics |= {
                f"{kind}/AP/{name}": -1.0 if np.isnan(ap) else float(ap)
                for name, ap in zip(classes, each, strict=True)
            }
    return metrics


def write(workdir: str | pathlib.Path, metrics: dict, rows: Sequence[dict]) -> None:
    """Writes eval.json, and results.json in COCO's form.

    Where masks rank by scores of their own there is results_segm.json too, for tools
    that know one score a file.
    """
    workdir = pathlib.Path(workdir)
    text = json.dumps(metrics, indent=1, allow_nan=False)
    files.write(workdir / "results.json", json.dumps(list(rows)))
    if rows and "mask_score" in rows[0]:
        own = [{**row, "score": row["mask_score"]} for row in rows]
        files.write(workdir / "results_segm.json", json.dumps(own))
    # Last, so that who finds the metrics finds what they were made of.
    files.write(workdir / "eval.json", text + "\n")
