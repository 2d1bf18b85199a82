"""One image's candidates to its detections, by any method.

n        candidates
d        detections returned
"""

from typing import Any, Literal, NamedTuple, Protocol, get_args, runtime_checkable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int

from detjax.ops import ranking
from detjax.ops.nms.fast import fast_of_list
from detjax.ops.nms.fusion import fuse
from detjax.ops.nms.greedy import diou, greedy
from detjax.ops.nms.matrix import matrix
from detjax.ops.nms.soft import soft
from detjax.types import Array, Detections

Method = Literal[
    "greedy",
    "greedy_agnostic",
    "diou",
    "fast",
    "soft",
    "soft_linear",
    "matrix",
    "matrix_linear",
    "wbf",
]
METHODS: tuple[Method, ...] = get_args(Method)
# Methods that change no score.
KEEPING = ("greedy", "greedy_agnostic", "diou", "fast")
MOST = 5_000


class Kept(NamedTuple):
    """What is left, by falling score, padded to d with zeros."""

    index: Array  # [d] int32: of the candidate
    boxes: Array  # [d 4]
    scores: Array  # [d]
    labels: Array  # [d] int32
    valid: Array  # [d] bool

    @property
    def detections(self) -> Detections:
        """The same, without what else a detector finds."""
        return Detections(self.boxes, self.scores, self.labels, self.valid)


@runtime_checkable
class Stage(Protocol):
    """The settings of suppression that the `detect` stage of every detector has."""

    @property
    def nms(self) -> Method: ...
    @property
    def nms_threshold(self) -> float: ...
    @property
    def nms_sigma(self) -> float: ...
    @property
    def score_threshold(self) -> float: ...
    @property
    def max_detections(self) -> int: ...


def best(
    boxes: Float[Array, "n 4"],
    scores: Float[Array, "n"],
    labels: Int[Array, "n"],
    *,
    max_detections: int,
) -> Kept:
    """The best of the candidates whose score is not -inf."""
    missing = max(max_detections - scores.size, 0)
    padded = jnp.pad(scores, (0, missing), constant_values=-jnp.inf)
    score, index = ranking.top_k(padded, max_detections)
    valid = score > -jnp.inf
    index = jnp.where(valid, index, 0).astype(jnp.int32)
    if scores.size == 0:
        # There is nothing that the index 0 could find.
        boxes, labels = jnp.zeros((1, 4), jnp.float32), jnp.zeros((1,), jnp.int32)
    return Kept(
        index=index,
        boxes=jnp.where(valid[:, None], boxes[index], 0),
        scores=jnp.where(valid, score, 0),
        labels=jnp.where(valid, labels[index], 0).astype(jnp.int32),
        valid=valid,
    )


def suppress(
    boxes: Float[Array, "n 4"],
    scores: Float[Array, "n"],
    labels: Int[Array, "n"],
    valid: Bool[Array, "n"],
    *,
    nms: Method = "greedy",
    threshold: ArrayLike,
    sigma: ArrayLike = 0.5,
    score_threshold: ArrayLike = 0.0,
    max_detections: int,
) -> Kept:
    """What is left of one image's candidates, of all classes and in any order.

    nms: the method.
        "greedy": boxes of one class that overlap a better one that was kept are
        dropped; "greedy_agnostic": those of any class. "diou": "greedy" by the distance
        IoU. "fast": also what overlaps a better one that was dropped itself is dropped.
        "soft" and "soft_linear" (Soft-NMS), "matrix" and "matrix_linear" (Matrix NMS)
        lower the scores of what overlaps, by a Gaussian of the IoU or linearly. "wbf"
        (weighted boxes fusion) joins boxes of one class to their mean.
    threshold: the IoU above which boxes are one; "soft", "matrix" and "matrix_linear"
        have none.
    sigma: of the Gaussians of "soft" and "matrix".
    score_threshold: methods that lower scores drop what then scores no more. The
        caller drops what scores little before.
    max_detections: d.

    Candidates that are not valid, and those with a number that is not finite, change
    nothing. Scores are at least 0; ties go to the lower index, except on a GPU. `index`
    finds masks and the like; only "wbf" changes boxes, and it is the best one's then.
    Boxes and scores carry a gradient, for which what lowers scores is constant, and of
    "wbf" the best box alone counts. "fast", "matrix" and "wbf"
    compare all with all, or go through all one by one: of more candidates than
    `MOST` they see the best.
    """
    if scores.size > MOST and nms in ("fast", "matrix", "matrix_linear", "wbf"):
        ranked = jnp.where(valid, scores, -jnp.inf)
        first = ranking.top_k(ranked, MOST)[1]
        kept = suppress(
            *(jnp.asarray(x)[first] for x in (boxes, scores, labels, valid)),
            nms=nms,
            threshold=threshold,
            sigma=sigma,
            score_threshold=score_threshold,
            max_detections=max_detections,
        )
        return kept._replace(index=jnp.where(kept.valid, first[kept.index], 0))
    boxes, scores, labels = map(jnp.asarray, (boxes, scores, labels))
    valid = jnp.asarray(valid) & jnp.isfinite(scores)
    most = max_detections
    given = boxes, scores, threshold, valid, labels
    lowered: dict[str, Any] = {"sigma": sigma, "score_threshold": score_threshold}
    match nms:
        case "greedy":
            left = _only(greedy(*given, most), scores)
        case "greedy_agnostic":
            left = _only(greedy(boxes, scores, threshold, valid, most=most), scores)
        case "diou":
            left = _only(diou(*given, most), scores)
        case "fast":
            left = _only(fast_of_list(*given), scores)
        case "soft":
            left = soft(*given, most, **lowered)
        case "soft_linear":
            left = soft(*given, most, decay="linear", **lowered)
        case "matrix":
            left = matrix(boxes, scores, valid, labels, **lowered)
        case "matrix_linear":
            left = matrix(boxes, scores, valid, labels, decay="linear", **lowered)
        case "wbf":
            fused, mean = fuse(*given)
            boxes = _sloped(fused, boxes, jnp.ones_like(boxes))
            left = _only(mean > score_threshold, mean)
    if nms not in KEEPING:
        factor = jnp.where(scores > 0, left / jnp.where(scores > 0, scores, 1), 0)
        left = _sloped(left, scores, jnp.where(left > -jnp.inf, factor, 0))
    return best(boxes, left, labels, max_detections=most)


def suppressed(
    stage: Stage,
    boxes: Float[Array, "n 4"],
    scores: Float[Array, "n"],
    labels: Int[Array, "n"],
    valid: Bool[Array, "n"],
) -> Kept:
    """`suppress` with the settings of a detector's stage."""
    return suppress(
        boxes,
        scores,
        labels,
        valid,
        nms=stage.nms,
        threshold=stage.nms_threshold,
        sigma=stage.nms_sigma,
        score_threshold=stage.score_threshold,
        max_detections=stage.max_detections,
    )


def _only(keep: jax.Array, scores: jax.Array) -> jax.Array:
    return jnp.where(keep, scores, -jnp.inf)


def _sloped(changed: jax.Array, given: jax.Array, factor: jax.Array) -> jax.Array:
    """`changed`, with the gradient of `given` times `factor`."""
    given = jnp.where(jnp.isfinite(given), given, 0)
    slope = given - jax.lax.stop_gradient(given)  # 0
    fixed = jax.lax.stop_gradient
    return fixed(changed) + fixed(factor) * slope
