"""Pictures under the maps of what a network's answers rest on."""

import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import jax
import numpy as np

from detjax import draw
from detjax.errors import UserError
from detjax.explain import cam, layers, pictures
from detjax.explain.cam import classic, eigen, gradients, score
from detjax.explain.cam.default import usual
from detjax.parameters import HEAD
from detjax.predict import TrainedModel
from detjax.settings import Count, Fraction, OneOf
from detjax.types import Inputs

MOST = 16  # backward passes at once


class Asked(NamedTuple):
    """What of a picture's answers is explained."""

    captions: list[str]  # q of them
    quantity: layers.Quantity
    # Of classifiers the classes [1 q], of detections their boxes [q 4] in the input
    labels: np.ndarray | None = None
    boxes: np.ndarray | None = None


def view(
    trained: TrainedModel,
    images: Sequence[pathlib.Path],
    out: pathlib.Path,
    *,
    method: Annotated[str, OneOf(cam.METHODS)] | None = None,
    layer: str | None = None,
    after: Literal["", "relu", "relu6"] = "",
    label: str | None = None,
    quantity: str | None = None,
    detections: Count = 8,
    min_score: Fraction = 0.3,
) -> list[pathlib.Path]:
    """Heat maps over pictures, a file each: of the class, or of every detection.

    method: of the map; if None "layer-cam" of detections, whose gradients lie at a
        place that a mean over places would lose, and "grad-cam" of all else; "cam" is
        of classifiers that end in a mean over places.
    layer: whose map it is, several with commas between; if None the coarsest map of
        the backbone, of SSD's the levels'.
    after: the activation that follows the layer, where no module computes it.
    label: the name of the class to explain; if None the most probable, of detections
        all classes.
    quantity: what is explained of each of them: "score", "box", "mask", "keypoint",
        "value", as far as the task knows it; the usual one if None.
    detections: that are shown of a picture, the best ones.
    min_score: detections that score less are left out.

    Raises UserError for a layer, class or quantity that the model does not have.
    """
    if method is None:
        method = "layer-cam" if trained.task.name == "detection" else "grad-cam"
    written = []
    for path in images:
        image, inputs = pictures.given(trained, path)
        panels, captions = [image], ["picture"]
        asked = asked_of(trained, inputs, label, quantity, detections, min_score)
        found = maps_of(trained, inputs, asked, method, layer, after)
        for i, heat in enumerate(np.asarray(found.maps)[0]):
            panel = pictures.overlay(image, heat, inputs)
            if asked.boxes is not None and len(asked.boxes) > i:
                panel = _framed(panel, asked.boxes[i], inputs)
            panels.append(panel)
            captions.append(asked.captions[i])
        target = out / f"{pathlib.Path(path).stem}-{method.replace('+', 'p')}.png"
        out.mkdir(parents=True, exist_ok=True)
        draw.save(target, pictures.grid(panels, captions))
        written.append(target)
    return written


def maps_of(
    trained: TrainedModel,
    inputs: Inputs,
    asked: Asked,
    method: str,
    layer: str | None,
    after: cam.After,
) -> cam.Maps:
    """The `cam.Maps` of what is asked; see `view`."""
    model, weights = trained.model, (trained.params, trained.state)
    if method == "cam":
        if trained.task.name != "classification" or asked.labels is None:
            raise UserError(
                "the classic CAM is of classifiers, and this model is of the task "
                f"{trained.task.name}; take --method=grad-cam"
            )
        found = classic.pooled(model, *weights, inputs)
        call = classic.maps(model.predict, found, asked.labels)
    else:
        names = layer.split(",") if layer else default(trained, inputs)
        if method in gradients.METHODS:
            call = gradients.maps(
                model.predict,
                names,
                asked.quantity,
                gradients.METHODS[method],
                after=after,
                chunk=MOST,
            )
        elif method == "score-cam":
            call = score.maps(
                model.predict, names, _stable(trained, asked), after=after
            )
        else:
            asked.captions[:] = ["all of it"]
            call = eigen.maps(model.predict, names, after=after)
    return jax.device_get(jax.jit(call)(*weights, inputs))


def default(trained: TrainedModel, inputs: Inputs) -> list[str]:
    """The layers that are shown if none is named."""
    model, weights = trained.model, (trained.params, trained.state)
    known = layers.shapes(model.predict, *weights, inputs)
    h, w = inputs.images.shape[1:3]
    return usual(known, (h, w), model.spec.groups.get(HEAD))


def asked_of(
    trained: TrainedModel,
    inputs: Inputs,
    label: str | None,
    quantity: str | None,
    most: int,
    min_score: float,
) -> Asked:
    """What `view` explains of a picture.

    Raises UserError where there is no such class, quantity, or detection.
    """
    task, classes = trained.task, trained.classes
    quantity = quantity or next(iter(task.quantities))
    if quantity not in task.quantities:
        raise UserError(
            f"the task {task.name} has no quantity {quantity!r}; choose one of "
            f"{[*task.quantities]}"
        )
    of = task.quantities[quantity]
    if label is not None and label not in classes:
        raise UserError(
            f"the model knows no class {label!r}; its classes are {classes[:20]}"
        )
    wanted = None if label is None else classes.index(label)
    answers = jax.device_get(
        jax.jit(trained.model.predict)(trained.params, trained.state, inputs)
    )
    if task.name == "detection":
        return _detections(answers, classes, of, wanted, most, min_score)
    if quantity.rpartition("/")[2] == "value":
        return Asked([quantity], of)
    return _class(answers, classes, of, wanted)


def _class(answers: Any, classes: Sequence[str], of: Any, wanted: int | None) -> Asked:
    """A class: of the image, or of where it wins."""
    scored = answers
    if isinstance(answers, dict):  # of several tasks, the first of which has classes
        scored = next(iter(answers.values()))
    scores = getattr(scored, "scores", None)
    if wanted is None and scores is None:
        won = scored.logits[0].argmax(axis=-1)
        wanted = int(np.bincount(won.ravel()).argmax())
    elif wanted is None:
        wanted = int(scores[0].argmax())
    said = "" if scores is None else f" {scores[0, wanted]:.2f}"
    labels = np.array([[wanted]])
    quantity = functools.partial(of, labels=labels)
    return Asked([f"{classes[wanted]}{said}"], quantity, labels)


def _detections(
    answers: Any,
    classes: Sequence[str],
    of: Callable[..., Any],
    wanted: int | None,
    most: int,
    min_score: float,
) -> Asked:
    """The best detections of an image."""
    some = answers.valid[0] & (answers.scores[0] >= min_score)
    if wanted is not None:
        some &= answers.labels[0] == wanted
    index = np.flatnonzero(some)[:most]
    if not len(index):
        named = "" if wanted is None else f" of {classes[wanted]}"
        raise UserError(
            f"the picture has no detection{named} that scores {min_score} or more; "
            "lower min_score"
        )
    labels, scores = answers.labels[0, index], answers.scores[0, index]
    captions = [
        f"{classes[one]} {score:.2f}" for one, score in zip(labels, scores, strict=True)
    ]
    quantity = functools.partial(of, index=index)
    return Asked(captions, quantity, labels[None], answers.boxes[0, index])


def _stable(trained: TrainedModel, asked: Asked) -> layers.Quantity:
    """A quantity of the same thing in changed pictures: detections by what they are."""
    if asked.boxes is None:
        return asked.quantity
    alike = trained.task.quantities["alike"]
    return functools.partial(alike, objects=asked.boxes[None], labels=asked.labels)


def _framed(panel: np.ndarray, box: np.ndarray, inputs: Inputs) -> np.ndarray:
    """`panel` [h w 3], a picture at its size, with a box of the input drawn in."""
    import cv2  # here: commands that draw nothing do without

    matrix = np.eye(3)
    if inputs.view is not None:
        matrix[:2] = np.asarray(inputs.view.affine)[0]
    corners = np.concatenate([np.reshape(box, (2, 2)), np.ones((2, 1))], axis=1)
    back = corners @ np.linalg.inv(matrix).T
    (x1, y1), (x2, y2) = np.rint(back[:, :2]).astype(int).tolist()
    panel, width = panel.copy(), max(2, min(panel.shape[:2]) // 150)
    return cv2.rectangle(panel, (x1, y1), (x2, y2), (255, 255, 255), width)
