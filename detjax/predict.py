"""Detections in the pixels of the original image: from a run's folder to an array."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import jax
import numpy as np
from flax.errors import ScopeParamNotFoundError, ScopeParamShapeError
from ml_collections import ConfigDict

from detjax import compilation, files, models
from detjax.checkpoint import Checkpoints
from detjax.data import augment, example, images, pixels, plan
from detjax.data import proposals as proposing
from detjax.errors import MissingFileError, UserError, reason
from detjax.ops import boxes, masks, patches
from detjax.ops.masks import Rle
from detjax.ops.paste import paste, paste_boxes
from detjax.types import Detections, Model

# Settings of models that runs of earlier versions had: data.min_size took its place.
RETIRED = ("min_size",)
# Where a run's weights are when its model's `finish` is done with them.
FINISHED = "finished"


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

    @property
    def masks(self) -> np.ndarray | None:
        """The masks [n h w], bool; None where there are none.

        They are decoded each time: n times the image's pixels in bytes.
        """
        if self.rles is None:
            return None
        decoded = np.zeros((len(self.rles), *self.size), bool)
        for mask, rle in zip(decoded, self.rles, strict=True):
            mask[:] = masks.decode_rle(rle)
        return decoded


def in_original(
    detections: Detections,
    affine: np.ndarray,
    size: tuple[int, int],
    network_size: tuple[int, int],
) -> Found:
    """`detections` of one image, on the host, brought back through `affine` [2 3].

    `affine` maps original pixels to the network's input of `network_size` (h, w);
    `size` is the original's.
    """
    some = np.asarray(detections.valid)
    found = np.asarray(detections.boxes, np.float64)[some]
    inverse = np.linalg.inv(np.vstack([affine, [0, 0, 1]]))
    h, w = size
    original = np.clip(augment.move_boxes(found, inverse), 0, [w, h, w, h])
    rles = _pasted(detections, some, affine, size, network_size)
    mask_scores, keypoints = (
        None if x is None else np.asarray(x)[some]
        for x in (detections.mask_scores, detections.keypoints)
    )
    if keypoints is not None:
        places = keypoints[..., :2] @ inverse[:2, :2].T + inverse[:2, 2]
        keypoints = np.concatenate([places, keypoints[..., 2:]], axis=-1)
    return Found(
        original,
        np.asarray(detections.scores)[some],
        np.asarray(detections.labels)[some],
        rles,
        mask_scores,
        keypoints,
        (int(h), int(w)),
    )


def _pasted(detections, some, affine, size, network_size) -> list[Rle] | None:
    """The masks of `some` detections in the original, None without masks."""
    around = np.asarray(detections.boxes, np.float32)[some]
    if detections.masks is not None:
        pasted = paste(
            np.asarray(detections.masks)[some], around, affine, size, network_size
        )
    elif detections.box_masks is not None:
        pasted = paste_boxes(
            np.asarray(detections.box_masks)[some],
            around,
            affine,
            size,
            aligned=detections.aligned,
        )
    else:
        return None
    return [patches.encode_rle(patch) for patch in pasted]


def to_results(
    found: Found, image_id: int | str, category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """`found` as entries of a COCO results file; `category_ids` are those of labels.

    A `mask_score` stands beside the box's `score` where masks have their own;
    `keypoints` are x, y, score of one after the other.
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
        rows.append(row)
    return rows


class Run(NamedTuple):
    """A trained model with what is needed to use it."""

    config: ConfigDict
    classes: list[str]
    category_ids: list[int]
    model: Model
    params: Any
    state: Any
    step: int

    def __call__(
        self,
        image: np.ndarray,
        min_score: float = 0.0,
        proposals: np.ndarray | None = None,
    ) -> Found:
        """Detections of an image [h w 3] (RGB) or [h w] (grey), uint8, of any size.

        A model that needs proposals is given those [p 4], xyxy pixels of the image, or
        where there are none those that its training data's method finds.

        Raises UserError for other arrays, and where no such method is known.
        """
        return self.predictor()(image, min_score, proposals)

    def predictor(self) -> Callable[..., Found]:
        """The function behind `__call__`, compiled once an input size.

        Keep it in a loop.
        """
        declared = {k: v for k, v in self.config.data.items() if k in plan.KEYWORDS}
        run = _jitted(self.model.predict)
        asked = self.proposals_asked()
        limit = self.config.data.get("max_proposals") or (asked and asked["limit"])

        def predict(
            image: np.ndarray,
            min_score: float = 0.0,
            proposals: np.ndarray | None = None,
        ) -> Found:
            image = as_rgb(image)
            whole = augment.Frame(np.eye(3), image.shape[:2])
            size, letterbox, scale = plan.fit_for(*image.shape[:2], **declared)
            matrix = augment.fit(whole, size, letterbox, scale).matrix
            moved = augment.move_pixels(image, matrix, size)[None]
            window = _WINDOW(
                matrix[:2].astype(np.float32), np.array(image.shape[:2], np.int32), size
            )
            given: dict[str, Any] = {}
            if self.model.needs_proposals:
                if proposals is None:
                    proposals = self.propose(image)
                # Of few sizes, each of which is compiled.
                most = limit or 1 << max(len(proposals) - 1, 0).bit_length()
                room = example.no_proposals(1, most)
                row = jax.tree.map(lambda x: x[0], room)
                example.put_proposals(row, proposals, matrix, size)
                given["proposals"] = room
            with fitting():
                found = run(self.params, self.state, moved, window[None], **given)
            found = jax.device_get(found)
            found = jax.tree.map(lambda x: x[0], found)
            some = found.valid & (found.scores >= min_score)
            found = dataclasses.replace(found, valid=some)
            return in_original(found, matrix[:2], image.shape[:2], size)

        return predict

    def proposals_asked(self) -> dict[str, Any] | None:
        """How the training data's proposals were found, None where nobody knows."""
        made = self.config.data.to_dict().get("prepare") or {}
        return proposing.complete(made["proposals"]) if made.get("proposals") else None

    def propose(self, image: np.ndarray) -> np.ndarray:
        """Proposals [p 4] of a new image [h w 3] RGB, found as the training data's.

        Raises UserError where nobody knows how those were.
        """
        asked = self.proposals_asked()
        if asked is None:
            raise UserError(
                f"the model {self.config.model.name!r} needs proposals and its config "
                "does not say how to find them in new images; set "
                "data.prepare.proposals, or give Run the proposals of the image"
            )
        return proposing.finder(asked)(np.ascontiguousarray(image[..., ::-1]))


_JITTED: dict[Any, Any] = {}
_WINDOW = jax.jit(boxes.window, static_argnums=2)


def _jitted(function):
    """`jax.jit(function)`, the same one for the same function."""
    return _JITTED.setdefault(function, jax.jit(function))


def load(workdir: str | pathlib.Path, best: bool = False) -> Run:
    """The newest checkpoint of `workdir`, or the `best`, ready to be called on images.

    Of a finished run the weights are those that its model's `finish` left, where it has
    one; the `best` are never finished. Raises MissingFileError where `workdir` holds
    no run, or none that is called best.
    """
    compilation.enable_cache()
    path = pathlib.Path(workdir) / "config.json"
    if not path.exists():
        raise MissingFileError(f"{path} does not exist; is {workdir} a --workdir?")
    described = read_config(path)
    folder = "best" if best else "checkpoints"
    checkpoints = Checkpoints(workdir, folder=folder, read_only=True)
    newest = checkpoints.latest()
    # A run that went on after it was finished has newer weights.
    if (
        not best
        and newest is not None
        and (path.parent / FINISHED / str(newest)).exists()
    ):
        checkpoints.close()
        checkpoints = Checkpoints(workdir, folder=FINISHED, read_only=True)
    step, params, state = checkpoints.restore_weights()
    checkpoints.close()
    with files.reading(path, "put back the one that the run wrote"):
        return assemble(described, params, state, step)


def assemble(described: dict[str, Any], params: Any, state: Any, step: int) -> Run:
    """A run from what its config.json says and its weights.

    Raises UserError where the classes are not as many as the model's.
    """
    sections = dict(described)
    classes, category_ids = sections.pop("classes"), sections.pop("category_ids")
    sections.pop("made_from", None)
    config = ConfigDict(sections)
    model = models.make(**config.model)
    for held in (classes, category_ids):
        if len(held) != config.model.num_classes:
            raise UserError(
                f"{len(held)} classes or category_ids are named, the model has "
                f"{config.model.num_classes}"
            )
    return Run(config, list(classes), list(category_ids), model, params, state, step)


def read_config(path: pathlib.Path) -> dict[str, Any]:
    """What a run's config.json says. Raises UserError where no run wrote it."""
    advice = "put back the one that the run wrote, or choose another --workdir"
    found = files.read_object(
        path, "model", "data", "classes", "category_ids", advice=advice
    )
    kinds = {"model": dict, "data": dict, "classes": list, "category_ids": list}
    for part, kind in kinds.items():
        if not isinstance(found[part], kind):
            raise UserError(f"{path} has {part}={found[part]!r}; {advice}")
    for name in RETIRED:
        found["model"].pop(name, None)
    return found


@contextlib.contextmanager
def fitting() -> Iterator[None]:
    """Turns an error of weights that the network cannot take into a `UserError`."""
    try:
        yield
    except (ScopeParamShapeError, ScopeParamNotFoundError) as error:
        raise UserError(
            "the weights do not fit the network that config.json describes "
            f"({reason(error)}); put back the config.json that the run wrote"
        ) from error


def as_rgb(image: np.ndarray) -> np.ndarray:
    """`image` as uint8 RGB [h w 3]; grey is repeated, an alpha channel dropped.

    Raises UserError for what is not a uint8 picture of at least one pixel.
    """
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or 0 in image.shape:
        raise UserError(
            f"an image of shape {image.shape} and type {image.dtype} was given; give a "
            "uint8 array [h w 3] in RGB, or [h w] in grey"
        )
    if image.ndim == 2:
        image = image[..., None]
    if image.shape[2] not in (1, 3, 4):
        raise UserError(f"an image of {image.shape[2]} channels was given; give 1 or 3")
    return image.repeat(3, axis=2) if image.shape[2] == 1 else image[..., :3]


def read_image(path: str | pathlib.Path) -> np.ndarray:
    """A file as uint8 RGB [h w 3], upright: EXIF rotation is applied.

    Grey, palette and 16-bit files are converted, alpha is dropped. Raises UserError
    that names a file which is not there or cannot be read as an image.
    """
    data = files.read_bytes(path)
    size = images.head(data).size
    if size and size[0] * size[1] > images.MOST_PIXELS:
        raise UserError(
            f"{path} has more than {images.MOST_PIXELS:,} pixels, the most that is "
            "read; cut it into parts"
        )
    try:
        return pixels.decode(data, cv2.IMREAD_COLOR_RGB)
    except UserError:
        raise UserError(f"{path} is not an image that can be decoded") from None
