"""Predicting in tests: in which arithmetic, and of which views of a picture.

Test-time augmentation merges the answers to mirrored and resized pictures. What is the
task's own, to mirror an answer, to resize it and to merge several, is in `types.Task`;
nothing here knows a model.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from flax.errors import ScopeParamShapeError

from detjax import settings
from detjax.errors import UserError
from detjax.ops import boxes, resize
from detjax.settings import Fraction, NotEmpty, Positive
from detjax.types import Array, Inputs, Model, Task

Scales = Annotated[tuple[Positive, ...], NotEmpty()]


def augmented(
    model: Model,
    task: Task,
    keypoints: Sequence[str] = (),
    *,
    flip: bool = False,
    scales: Scales = (1.0,),
    merge_iou: Fraction = 0.5,
    precision: Literal["highest", "default"] = "highest",
) -> Model:
    """`model`, whose `predict` sees each picture several times and merges the answers.

    flip: also look at images mirrored left to right.
    scales: the sizes at which to look at them, as shares of the network's input.
    merge_iou: detections of one class that overlap by more are one.
    precision: of float32 convolutions and products on accelerators: "highest" is all of
        float32; "default" is what training takes, which is faster (TF32 on a GPU,
        bfloat16 on a TPU). Without a difference for models of dtype="bfloat16".

    `keypoints` are the names of the data set's, whose left_ and right_ change places in
    a mirror. Of detections that are one the best stays, with its mask and keypoints;
    box and score are averaged. There are as many as before.

    All in one program of static shapes, which takes as many times as long as there are
    pictures: a scale by its square.

    Raises UserError, when it predicts, for a network that takes inputs of one size, and
    where keypoints are to be mirrored whose names are not known.
    """
    scales, predict = tuple(scales), model.predict
    if flip or scales != (1.0,):
        names = tuple(keypoints)
        predict = _predict(predict, task, names, flip, scales, merge_iou)
    if precision != "default":
        predict = _in(precision, predict)
    return model._replace(predict=predict)


def split_settings(held: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of the section eval: those of `augmented`, and the others."""
    known = settings.keywords(augmented)
    own = {name: value for name, value in held.items() if name in known}
    return own, {name: value for name, value in held.items() if name not in known}


# Cached, so that what is compiled of it once is found again.
@functools.lru_cache(16)
def _in(precision: str, predict: Callable[..., Any]) -> Callable[..., Any]:
    """`predict`, whose float32 products have a precision of `jax.lax.Precision`."""

    def precise(params, state, inputs: Inputs):
        with jax.default_matmul_precision(precision):
            return predict(params, state, inputs)

    return precise


@functools.lru_cache(16)
def _predict(
    predict: Callable[..., Any],
    task: Task,
    names: tuple[str, ...],
    flip: bool,
    scales: tuple[float, ...],
    merge_iou: float,
) -> Callable[..., Any]:
    """The `predict` of `augmented`."""

    def merged(params, state, inputs: Inputs):
        size = inputs.images.shape[1:3]
        answers = []
        for scale in scales:
            seen = resized(inputs, scale)
            try:
                answers.append(_back(task, predict(params, state, seen), seen, size))
            except ScopeParamShapeError:
                if scale == 1:
                    raise
                raise UserError(
                    f"eval.scales={scales} shows the network other sizes, and it takes "
                    "inputs of one size only; set eval.scales=(1.0,)"
                ) from None
            if flip:
                answer = predict(params, state, mirrored(seen))
                answer = task.mirror(answer, seen.images.shape[1:3], names)
                answers.append(_back(task, answer, seen, size))
        return task.merge(answers, merge_iou)

    return merged


def _back(task: Task, answer: Any, seen: Inputs, size: tuple[int, int]) -> Any:
    """An answer to inputs that were resized, in pixels of inputs of `size` (h, w)."""
    h, w = seen.images.shape[1:3]
    return (
        answer if (h, w) == size else task.rescale(answer, (size[0] / h, size[1] / w))
    )


def resized(inputs: Inputs, scale: float) -> Inputs:
    """`inputs` at `scale` times their size, rounded to whole pixels."""
    h, w = inputs.images.shape[1:3]
    size = max(round(h * scale), 1), max(round(w * scale), 1)
    if size == (h, w):
        return inputs
    sy, sx = size[0] / h, size[1] / w
    factors = jnp.array([[sx], [sy]], jnp.float32)
    return _changed(
        inputs,
        _images(inputs.images, size),
        lambda affine: affine * factors,
        lambda found: found * jnp.array([sx, sy, sx, sy], jnp.float32),
    )


def mirrored(inputs: Inputs) -> Inputs:
    """`inputs` mirrored left to right."""
    w = inputs.images.shape[2]
    signs = jnp.array([[-1.0], [1.0]], jnp.float32)
    return _changed(
        inputs,
        inputs.images[:, :, ::-1],
        lambda affine: (affine * signs).at[:, 0, 2].add(w),
        lambda found: boxes.mirror(found, w),
    )


def _changed(
    inputs: Inputs,
    images: Array,
    affine: Callable[[Array], Array],
    proposals: Callable[[Array], Array],
) -> Inputs:
    """`inputs` of other `images`, whose affine and boxes change so."""
    view, given = inputs.view, inputs.proposals
    if view is not None:
        view = dataclasses.replace(view, affine=affine(view.affine))
    if given is not None:
        given = dataclasses.replace(given, boxes=proposals(given.boxes))
    return Inputs(images, view, given)


def _images(images: Array, size: tuple[int, int]) -> Array:
    """Images [b h w 3] at `size`, bilinear, in their type."""
    found = jax.vmap(resize.bilinear, (0, None))(images.astype(jnp.float32), size)
    whole = jnp.issubdtype(images.dtype, jnp.integer)
    return (jnp.round(found) if whole else found).astype(images.dtype)
