"""Detections brought back to the pixels of the original picture, and COCO's rows."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from detjax.data import frames, patches, rectangles
from detjax.data.paste import paste, paste_boxes
from detjax.data.rle import Rle, decode
from detjax.types import Detections


class Found(NamedTuple):
    """The detections of one image, in its pixels, by falling score; not padded.

    Masks are kept run-length encoded, as COCO's tools take them.
    """

    boxes: np.ndarray  # [n 4] xyxy
    scores: np.ndarray  # [n]
    labels: np.ndarray  # [n]
    rles: list[Rle] | None
    mask_scores: np.ndarray | None = (
        None  # [n], where masks rank by scores of their own
    )
    keypoints: np.ndarray | None = None  # [n k 3] x, y, score
    size: tuple[int, int] = (0, 0)  # (h, w) of the image
    oriented: np.ndarray | None = None  # [n 5], boxes at an angle
    amodal: np.ndarray | None = None  # [n 4] xyxy, of whole objects

    @property
    def masks(self) -> np.ndarray | None:
        """The masks [n h w], bool; None where there are none.

        They are decoded each time: n times the image's pixels in bytes.
        """
        if self.rles is None:
            return None
        decoded = np.zeros((len(self.rles), *self.size), bool)
        for mask, rle in zip(decoded, self.rles, strict=True):
            mask[:] = decode(rle)
        return decoded


def shrink(detections: Detections) -> Detections:
    """What has to leave the device: masks of the whole input in 8 bits, the rest as is.

    A hundred float32 maps of 138 x 138 are 7.6 MB an image. Drawn four times as large,
    about two in a hundred of the pixels along a mask's edge come out otherwise.
    """
    if detections.masks is None:
        return detections
    masks = jnp.round(255 * detections.masks).astype(jnp.uint8)
    return dataclasses.replace(detections, masks=masks)


def restore(
    detections: Detections,
    affine: np.ndarray,
    size: tuple[int, int],
    network_size: tuple[int, int],
    min_score: float = 0.0,
) -> Found:
    """`detections` of one image, on the host, brought back through `affine` [2 3].

    `affine` maps original pixels to the network's input of `network_size` (h, w);
    `size` is the original's. Those that score less than `min_score` are left out.
    """
    some = np.asarray(detections.valid) & ~(np.asarray(detections.scores) < min_score)
    found = np.asarray(detections.boxes, np.float64)[some]
    inverse = np.linalg.inv(np.vstack([affine, [0, 0, 1]]))
    h, w = size
    original = np.clip(frames.move_boxes(found, inverse), 0, [w, h, w, h])
    mask_scores, keypoints = (
        None if x is None else np.asarray(x)[some]
        for x in (detections.mask_scores, detections.keypoints)
    )
    if keypoints is not None:
        places = keypoints[..., :2] @ inverse[:2, :2].T + inverse[:2, 2]
        keypoints = np.concatenate([places, keypoints[..., 2:]], axis=-1)
    oriented, amodal = (
        None if x is None else np.asarray(x, np.float64)[some]
        for x in (detections.oriented, detections.amodal)
    )
    return Found(
        original,
        np.asarray(detections.scores)[some],
        np.asarray(detections.labels)[some],
        _pasted(detections, some, affine, size, network_size),
        mask_scores,
        keypoints,
        (int(h), int(w)),
        None if oriented is None else rectangles.moved(oriented, inverse),
        None if amodal is None else frames.move_boxes(amodal, inverse),
    )


def confident(found: Found, min_score: float) -> Found:
    """`found` without the detections that score less than `min_score`."""
    some = np.flatnonzero(~(np.asarray(found.scores) < min_score))

    def rows(held: np.ndarray | None) -> np.ndarray | None:
        return None if held is None else np.asarray(held)[some]

    return found._replace(
        boxes=found.boxes[some],
        scores=found.scores[some],
        labels=found.labels[some],
        rles=None if found.rles is None else [found.rles[i] for i in some],
        mask_scores=rows(found.mask_scores),
        keypoints=rows(found.keypoints),
        oriented=rows(found.oriented),
        amodal=rows(found.amodal),
    )


def _pasted(detections, some, affine, size, network_size) -> list[Rle] | None:
    """The masks of `some` detections in the original, None without masks.

    Those of whole numbers are shares of the largest one of their type.
    """
    masks = detections.box_masks if detections.masks is None else detections.masks
    if masks is None:
        return None
    masks = np.asarray(masks)
    whole = np.issubdtype(masks.dtype, np.integer)
    threshold = np.iinfo(masks.dtype).max / 2 if whole else 0.5
    chosen = masks if some.all() else masks[some]
    around = np.asarray(detections.boxes, np.float32)[some]
    if detections.masks is not None:
        drawn = paste(chosen, around, affine, size, network_size, threshold)
    else:
        aligned = detections.aligned
        drawn = paste_boxes(chosen, around, affine, size, threshold, aligned)
    return patches.encode_all(drawn)


def entries(
    found: Found, image_id: int | str, category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """`found` as entries of a COCO results file; `category_ids` are those of labels.

    A `mask_score` stands beside the box's `score` where masks have their own;
    `keypoints` are x, y, score of one after the other, `oriented` boxes the centre,
    the sides and the angle, `amodal` ones xywh as the others.
    """
    rows = []
    row: dict[str, Any]
    for i, (box, score, label) in enumerate(
        zip(found.boxes, found.scores, found.labels, strict=True)
    ):
        x1, y1, x2, y2 = (float(v) for v in box)
        row = {
            "image_id": image_id,
            "category_id": category_ids[int(label)],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": float(score),
        }
        if found.rles is not None:
            row["segmentation"] = found.rles[i]
        if found.mask_scores is not None:
            row["mask_score"] = float(found.mask_scores[i])
        if found.keypoints is not None:
            row["keypoints"] = found.keypoints[i].astype(float).ravel().tolist()
        if found.oriented is not None:
            row["oriented"] = found.oriented[i].astype(float).tolist()
        if found.amodal is not None:
            x1, y1, x2, y2 = (float(v) for v in found.amodal[i])
            row["amodal"] = [x1, y1, x2 - x1, y2 - y1]
        rows.append(row)
    return rows
