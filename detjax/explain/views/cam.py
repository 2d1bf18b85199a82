"""Pictures under the maps of what a network's answers rest on."""

import pathlib
from collections.abc import Sequence
from typing import Annotated, Literal

import jax
import numpy as np

from detjax import draw
from detjax.errors import UserError
from detjax.explain import cam, pictures
from detjax.explain.cam import classic, eigen, gradients, score
from detjax.explain.views import asked
from detjax.predict import TrainedModel
from detjax.settings import Count, Fraction, OneOf
from detjax.types import Asked, Inputs

MOST = 16  # backward passes at once


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
        "value", as far as the task knows it; the usual one if None. With a number it is
        a part, as "keypoint:3" or the side "box:0"; "unit:LAYER:CHANNEL" is a unit,
        such as a prototype of YOLACT's, "unit:proto_net.10:3".
    detections: that are shown of a picture, the best ones.
    min_score: detections that score less are left out.

    A picture without such a detection is written as it is. Raises UserError for a
    layer, class or quantity that the model does not have, and where no picture has a
    detection.
    """
    if method is None:
        method = "layer-cam" if trained.task.name == "detection" else "grad-cam"
    labels = [] if label is None else [label]
    ask = asked.Asker(trained, quantity or "", labels, detections, min_score)
    written, empty = [], 0
    for path, stem in zip(images, pictures.stems(images), strict=True):
        image, inputs = pictures.given(trained, path)
        of = ask(inputs)
        image, shown = pictures.small(image, inputs)
        panels, captions = [image], ["picture"]
        if of.captions:
            heats = maps_of(ask, inputs, of, method, layer, after).maps[0]
            said = ["all of it"] if method == "eigen-cam" else of.captions
            for i, (heat, caption) in enumerate(zip(heats, said, strict=False)):
                panel = pictures.overlay(image, heat, shown)
                if of.boxes is not None:
                    panel = _framed(panel, of.boxes[i], shown)
                panels.append(panel)
                captions.append(caption)
        else:
            empty += 1
            captions[0] = f"nothing that scores {min_score} or more"
        target = out / f"{stem}-{method.replace('+', 'p')}.png"
        out.mkdir(parents=True, exist_ok=True)
        draw.save(target, pictures.grid(panels, captions))
        written.append(target)
    if empty and empty == len(written):
        named = "" if label is None else f" of {label}"
        raise UserError(
            f"no picture has a detection{named} that scores {min_score} or more; lower "
            "min_score"
        )
    return written


def maps_of(
    ask: asked.Asker,
    inputs: Inputs,
    of: Asked,
    method: str,
    layer: str | None,
    after: cam.After,
) -> cam.Maps:
    """The `cam.Maps` of what is asked of a picture; see `view`."""
    trained = ask.trained
    if method == "cam":
        if trained.task.name != "classification" or ask.unit:
            raise UserError(
                "the classic CAM is of classifiers and their classes, and this is "
                f"asked of the task {trained.task.name}; take --method=grad-cam"
            )
        found = ask.once(
            inputs, lambda: classic.pooled(trained.model, *ask.weights, inputs)
        )

        def build(quantity, params, state, inputs, which):
            return classic.maps(ask.predict, found, which)(params, state, inputs)

        return jax.device_get(ask.run((method, found), build, of, inputs))
    names = tuple(layer.split(",") if layer else ask.usual(inputs))

    def maps(quantity, params, state, inputs, which):
        def measured(answers):
            return quantity(answers, which)

        if method == "score-cam":
            call = score.maps(ask.predict, names, measured, after=after)
        elif method == "eigen-cam":
            call = eigen.maps(ask.predict, names, after=after)
        else:
            call = gradients.maps(
                *(ask.predict, names, measured, gradients.METHODS[method]),
                after=after,
                chunk=MOST,
            )
        return call(params, state, inputs)

    return jax.device_get(ask.run((method, names, after), maps, of, inputs))


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
