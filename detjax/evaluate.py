"""A model's COCO metrics on a data set."""

import dataclasses
import functools
import json
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import tqdm

from detjax import cluster, files, sharding
from detjax.data import rle
from detjax.data.records import Record, Unreadable
from detjax.errors import UserError
from detjax.eval import coco
from detjax.ops import boxes
from detjax.predict import fitting, in_original, to_results
from detjax.preemption import Interrupted
from detjax.sharding import Layout
from detjax.types import Batch, Detections, Model


class Truth(NamedTuple):
    """What an evaluation compares with: the readable images of a split."""

    columns: coco.Truths  # their image_ids are ranks
    # [n] of every record of the split: its place among the ids in rising order, which
    # decides between equal scores; -1 of a record that cannot be read
    ranks: np.ndarray
    masked: np.ndarray  # [m] bool: objects whose mask is known


def truth_of(records: Sequence[Record], skip: bool = False) -> Truth:
    """What `records` hold, as the metric wants it; it ignores difficult objects.

    An object without a mask in a set with masks is there with its box as a mask, so
    that detections of it count neither way where masks are judged. With `skip` records
    and masks that cannot be read are passed over; else they are a UserError.
    """
    ids: dict[int, int | str] = {}
    rows, sizes, rles, points = [], [], [], []
    for place, record in readable(records, skip):
        ids[place] = record.id
        size = (record.height, record.width)
        for a, code in zip(
            record.annotations, masks_of(place, record, skip), strict=True
        ):
            x1, y1, x2, y2 = a.box
            box = (x1, y1, x2 - x1, y2 - y1)
            rows.append((place, a.label, *box, a.area, a.crowd, a.difficult))
            sizes.append(size)
            rles.append(code)
            points.append(a.keypoints)
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
    )


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

    pycocotools reads memory that was never set where a code is too short.
    """
    codes = [a.rle for a in record.annotations]
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
    """The masks of all objects, of `boxes` [m 4] xywh; said aloud if some are boxes."""
    missing = sum(code is None for code in codes)
    if missing:
        print(
            f"warning: {missing} of {len(codes)} annotations have no mask; detections "
            "of these count neither way where masks are judged",
            file=sys.stderr,
        )
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


class Found(NamedTuple):
    """What was detected in a split, an entry of COCO's results files each."""

    places: list[int]  # of each entry's image in the split
    rows: list[dict[str, Any]]


def results_of(
    found: Found,
    ranks: np.ndarray,
    category_ids: Sequence[int],
    kind: str = "bbox",
) -> coco.Results:
    """What was found as the metric wants it; labels count `category_ids`.

    `ranks` are those of `Truth`. Masks (`kind` "segm") rank by their `mask_score` where
    they have one.
    """
    rows = found.rows
    score = (
        "mask_score" if kind == "segm" and rows and "mask_score" in rows[0] else "score"
    )
    label = {number: i for i, number in enumerate(category_ids)}
    return coco.Results(
        image_ids=ranks[np.array(found.places, np.int64)],
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
    image_ids: Sequence[int | str],
    category_ids: Sequence[int],
    layout: Layout | None = None,
    stop: Callable[[], bool] = lambda: False,
    progress: bool = True,
) -> Found:
    """What is detected in every valid image.

    `image_ids` are those of the split's records, `category_ids` those of labels. Every
    process reads its share of the images and returns the entries of all. Raises
    Interrupted as soon as `stop()` holds.
    """
    layout = layout or sharding.make()
    params, state = layout.keep((params, state))
    rows: list[list[Any]] = []

    predict = predictor(model.predict, layout)
    quiet = not progress or not cluster.primary()
    for batch in tqdm.tqdm(loader, disable=quiet, desc="evaluate", unit="batch"):
        if stop():
            raise Interrupted
        seen = filled_up(dataclasses.replace(batch, objects=None), layout.local_shares)
        with fitting():
            found = layout.local(predict(params, state, layout.put(seen)))
        for i in np.flatnonzero(batch.valid):
            one = in_original(
                jax.tree.map(lambda x, i=i: x[i], found),
                batch.affine[i],
                tuple(batch.sizes[i].tolist()),
                batch.images.shape[1:3],
            )
            place = int(batch.index[i])
            entries = to_results(one, image_ids[place], category_ids)
            rows += [[place, entry] for entry in entries]
    rows = cluster.gather(rows)
    return Found([place for place, _ in rows], [row for _, row in rows])


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
    missing = -len(batch.index) % shares
    return jax.tree.map(
        lambda x: np.concatenate([x, np.repeat(x[-1:], missing, axis=0)]), batch
    )


def evaluate(
    found: Found,
    truth: Truth,
    *,
    classes: Sequence[str],
    category_ids: Sequence[int],
    max_detections: Sequence[int] = (1, 10, 100),
    sigmas: Sequence[float] = coco.COCO_SIGMAS,
) -> dict[str, float]:
    """Flat COCO metrics of what was `found`: 'bbox/AP', 'segm/AP50', ...

    Masks and keypoints are evaluated where both sides have them, nothing found being
    all kinds; keypoints need as many `sigmas`, and at most 20 detections of an image
    and class count there.
    'bbox/AP/<class>' follows for each class of more than one. Undefined numbers are -1,
    as COCO has it.
    """
    truths, rows = truth.columns, found.rows
    images = truth.ranks[truth.ranks >= 0]
    kinds = ["bbox"]
    if truths.rles is not None and (not rows or "segmentation" in rows[0]):
        kinds.append("segm")
    if truths.keypoints is not None and (not rows or "keypoints" in rows[0]):
        kinds.append("keypoints")
    metrics: dict[str, float] = {}
    for kind in kinds:
        results = results_of(found, truth.ranks, category_ids, kind)
        judged = truths
        if kind == "segm":
            judged = truths._replace(ignore=truths.ignore | ~truth.masked)
        asked: dict[str, Any] = {
            "image_ids": images,
            "num_classes": len(classes),
            "kind": kind,
            "max_detections": tuple(max_detections),
        }
        if kind == "keypoints":
            asked |= {"max_detections": None, "sigmas": tuple(sigmas)}
        summary = coco.evaluate(judged, results, **asked)
        metrics |= {f"{kind}/{name}": value for name, value in summary.items()}
        if len(classes) > 1:
            each = coco.per_class(judged, results, **asked)
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
    files.write_text(workdir / "results.json", json.dumps(list(rows)))
    if rows and "mask_score" in rows[0]:
        own = [{**row, "score": row["mask_score"]} for row in rows]
        files.write_text(workdir / "results_segm.json", json.dumps(own))
    # Last, so that who finds the metrics finds what they were made of.
    files.write_text(workdir / "eval.json", text + "\n")
