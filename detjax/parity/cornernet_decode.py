"""CornerNet's pairs of corners and its test procedure, against the authors'.

Their soft NMS counts a pixel more in each side. In place of a row that it drops it
leaves a copy of another, with the score that this has by then: such copies are no
detections, and are not expected.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from detjax.models.cornernet import Detect
from detjax.nn.images import windows
from detjax.ops import boxes as box_ops
from detjax.ops import nms
from detjax.parity import certificate, goldens
from detjax.types import Inputs, Model, View

# How far twins may differ: cells or pixels, and scores.
WITHIN = {"boxes": 0.01, "scores": 1e-4, "corners": 1e-4}
# Their soft NMS drops what scores less.
LEAST = 0.001


def settings(options: dict[str, Any]) -> dict[str, Any]:
    """The settings of `Detect` by the original's options."""
    return {
        "corners": options.get("K", options.get("top_k")),
        "tag_distance": options["ae_threshold"],
        "window": options.get("kernel", options.get("nms_kernel")),
        "pairs": options["num_dets"],
    }


def pairs(maps: Any, options: dict[str, Any]) -> list[dict[str, np.ndarray]]:
    """The pairs of corners in each image of the `Maps` of a batch."""
    paired = jax.jit(jax.vmap(Detect(**settings(options)).paired))
    found = jax.device_get(paired(maps))
    return [
        {
            "boxes": found.boxes[i][some],
            "scores": found.scores[i][some],
            "corners": found.corners[i][some],
            "labels": found.labels[i][some],
        }
        for i, some in enumerate(found.valid)
    ]


class Tested(NamedTuple):
    """What is found in an image by the test procedure, by name."""

    found: dict[str, np.ndarray]
    dropped: dict[str, np.ndarray]  # by soft NMS, without scores


def tested(model: Model, variables: Any, facts: dict[str, Any]) -> Tested:
    """Detections of an image and, where the golden says so, of its mirror image."""
    inputs, (y, x) = padded(facts)
    images, options = inputs.images, facts["options"]
    if options["test_flipped"]:
        images = np.concatenate([images, images[:, :, ::-1]])
    detect = Detect(**settings(options))
    size = images.shape[1:3]

    @jax.jit
    def run(variables, images):
        maps: Any = model.net.apply(variables, images)
        found = jax.vmap(detect.paired)(maps[-1])
        mh, mw = maps[-1].tl.tag.shape[1:]
        cells = found.boxes
        if options["test_flipped"]:
            cells = cells.at[1].set(box_ops.mirror(cells[1], mw))
        scale = jnp.array([size[1] / mw, size[0] / mh] * 2, jnp.float32)
        placed = box_ops.clip(cells * scale, windows(inputs)[0]).reshape(-1, 4)
        scores, valid, labels = (
            v.ravel() for v in (found.scores, found.valid, found.labels)
        )
        left = nms.soft(
            placed + jnp.array([0, 0, 1, 1]),
            jnp.where(valid, scores, 0.0),
            options["nms_threshold"],
            valid,
            labels,
            options["max_per_image"],
            score_threshold=LEAST,
        )
        kept = nms.best(placed, left, labels, max_detections=options["max_per_image"])
        return kept, (placed, labels, valid & (left == -jnp.inf))

    kept, (placed, labels, out) = jax.device_get(run(variables, images))
    some, corner = kept.valid, np.array([x, y, x, y], np.float32)
    found = {
        "boxes": kept.boxes[some] - corner,
        "scores": kept.scores[some],
        "labels": kept.labels[some],
    }
    return Tested(found, {"boxes": placed[out] - corner, "labels": labels[out]})


def padded(facts: dict[str, Any]) -> tuple[Inputs, tuple[int, int]]:
    """A golden's test image, uint8 RGB in the middle of zeros, and where (y, x)."""
    given = facts["image"]
    drawn = np.round(255 * goldens.draw_images(given["shape"], given["seed"]))
    _, h, w, _ = drawn.shape
    size = h | 127, w | 127
    y, x = (whole // 2 - side // 2 for whole, side in zip(size, (h, w), strict=True))
    images = np.zeros((1, *size, 3), np.uint8)
    images[:, y : y + h, x : x + w] = drawn[..., ::-1]
    affine = np.array([[[1, 0, x], [0, 1, y]]], np.float32)
    view = View(affine, np.array([[h, w]], np.int32), np.ones(1, bool))
    return Inputs(images, view), (y, x)


def pair_rows(rows: list[list[float]]) -> dict[str, np.ndarray]:
    """A golden's rows of pairs by name."""
    table = np.array(rows, np.float64).reshape(-1, 8)
    return {
        "boxes": table[:, :4],
        "scores": table[:, 4],
        "corners": table[:, 5:7],
        "labels": table[:, 7],
    }


def tested_share(ours: Tested, rows: list[list[float]]) -> float:
    """`share` of a golden's rows of detections, without copies.

    A copy is a row beside its own later state, or of a pair that soft NMS drops or lets
    score less than all rows, which are the best, copies among them.
    """
    last = {(*row[:4], row[5]): row for row in sorted(rows, key=lambda r: -r[4])}
    table = np.array([*last.values()], np.float64).reshape(-1, 6)
    held = {"boxes": table[:, :4], "scores": table[:, 4], "labels": table[:, 5] - 1}
    least = held["scores"].min(initial=1) - WITHIN["scores"]
    high = ours.found["scores"] >= least
    found = {name: value[high] for name, value in ours.found.items()}
    missing = certificate.twins(found, held, WITHIN) < 0
    within = {"boxes": WITHIN["boxes"]}
    lower = {
        name: np.concatenate([value, ours.found[name][~high]])
        for name, value in ours.dropped.items()
    }
    copies = missing & (certificate.twins(lower, held, within) >= 0)
    return share(found, {name: value[~copies] for name, value in held.items()})


def listed(found: dict[str, np.ndarray]) -> list[list[float]]:
    """Pairs or detections as a golden lists them."""
    if "corners" in found:
        columns = [found["boxes"], found["scores"], found["corners"], found["labels"]]
    else:
        columns = [found["boxes"], found["scores"], found["labels"] + 1]
    return np.column_stack(columns).astype(float).tolist()


def share(ours: dict[str, np.ndarray], rows: dict[str, np.ndarray]) -> float:
    """The part of `rows` with a twin among `ours`, of 1; those too many count too."""
    twins = certificate.twins(ours, rows, WITHIN)
    return certificate.share([twins], [len(ours["boxes"])])
