"""Geometry of boxes at an angle, [5]: centre x and y, sides w and h, and the angle.

The side w goes along (cos angle, sin angle): y points down, so that the angle, in
radians, turns clockwise, as OpenCV's rectangles do in degrees. In the canonical form w
is no less than h, and the angle lies from -pi / 2 to below pi / 2.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float, Int

from detjax.types import Array

# What is on an edge is inside: in parts of a pair's size.
_EDGE = 1e-5
_EXACT = lax.Precision.HIGHEST


def area(boxes: Float[Array, "... 5"]) -> Float[Array, "..."]:
    """w h, of sides that are not negative."""
    return jnp.maximum(boxes[..., 2], 0) * jnp.maximum(boxes[..., 3], 0)


def corners(boxes: Float[Array, "... 5"]) -> Float[Array, "... 4 2"]:
    """The corners (x, y), one after the other around the box."""
    along, across = _axes(boxes)
    along, across = along * boxes[..., 2:3] / 2, across * boxes[..., 3:4] / 2
    signs = ((1, 1), (-1, 1), (-1, -1), (1, -1))
    return jnp.stack([boxes[..., :2] + a * along + b * across for a, b in signs], -2)


def hull(boxes: Float[Array, "... 5"]) -> Float[Array, "... 4"]:
    """The upright boxes xyxy around them."""
    places = corners(boxes)
    return jnp.concatenate([places.min(axis=-2), places.max(axis=-2)], axis=-1)


def upright(boxes: Float[Array, "... 4"]) -> Float[Array, "... 5"]:
    """Boxes xyxy as boxes at an angle, in the canonical form."""
    low, high = boxes[..., :2], boxes[..., 2:]
    angle = jnp.zeros_like(boxes[..., :1])
    return canonical(jnp.concatenate([(low + high) / 2, high - low, angle], axis=-1))


def canonical(boxes: Float[Array, "... 5"]) -> Float[Array, "... 5"]:
    """The same boxes in the canonical form."""
    x, y, w, h, angle = jnp.moveaxis(boxes, -1, 0)
    angle = jnp.where(h > w, angle + jnp.pi / 2, angle)
    angle = (angle + jnp.pi / 2) % jnp.pi - jnp.pi / 2
    return jnp.stack([x, y, jnp.maximum(w, h), jnp.minimum(w, h), angle], axis=-1)


def mirror(boxes: Float[Array, "... 5"], width: int | float) -> Float[Array, "... 5"]:
    """The boxes in the mirror image, left to right, of a picture so wide."""
    x, y, w, h, angle = jnp.moveaxis(boxes, -1, 0)
    return canonical(jnp.stack([width - x, y, w, h, -angle], axis=-1))


def rescale(
    boxes: Float[Array, "... 5"], scale: tuple[float, float]
) -> Float[Array, "... 5"]:
    """The boxes in a picture that is `scale` (y, x) times as large.

    Where the factors differ a rectangle becomes none: its long axis is moved, and the
    other side keeps the area.
    """
    sy, sx = scale
    factors = jnp.array([sx, sy], jnp.float32)
    along = _axes(boxes)[0] * boxes[..., 2:3] * factors
    w = jnp.linalg.norm(along, axis=-1)
    h = boxes[..., 2] * boxes[..., 3] * sx * sy / jnp.maximum(w, 1e-9)
    angle = jnp.arctan2(along[..., 1], along[..., 0])
    sides = jnp.stack([w, h, angle], axis=-1)
    return canonical(jnp.concatenate([boxes[..., :2] * factors, sides], axis=-1))


def iou(a: Float[Array, "n 5"], b: Float[Array, "m 5"]) -> Float[Array, "n m"]:
    """The IoU of every pair; 0 where both have no area."""
    return jax.vmap(lambda one: jax.vmap(lambda other: _iou(one, other))(b))(a)


def paired_iou(a: Float[Array, "n 5"], b: Float[Array, "n 5"]) -> Float[Array, "n"]:
    """The IoU of each box of `a` with that of `b` at the same place."""
    return _jitted(a, b)


def nms(
    boxes: Float[Array, "n 5"],
    scores: Float[Array, "n"],
    threshold: float,
    valid: Bool[Array, "n"] | None = None,
    labels: Int[Array, "n"] | None = None,
) -> Bool[Array, "n"]:
    """Which boxes survive, [n] bool in the order given.

    From the highest score down (ties: lower index first), a box is kept unless its IoU
    with a box kept before it, and of the same label where labels are given, is greater
    than `threshold`. Carries no gradient.

    Exact: keep[j] = not any(keep[i] and hit[i, j], i < j) until nothing changes, which
    is a few rounds. The overlaps of all pairs are held at once.
    """
    boxes, scores = lax.stop_gradient((jnp.asarray(boxes), jnp.asarray(scores)))
    some = jnp.ones(len(scores), bool) if valid is None else jnp.asarray(valid)
    order = jnp.argsort(jnp.where(some, -scores, jnp.inf), stable=True)
    ranked, real = boxes[order], some[order]
    later = jnp.arange(len(order))[:, None] < jnp.arange(len(order))
    hits = (iou(ranked, ranked) > threshold) & later
    if labels is not None:
        own = jnp.asarray(labels)[order]
        hits &= own[:, None] == own

    def again(state: tuple[Array, Array]) -> tuple[Array, Array]:
        keep, _ = state
        found = real & ~(hits & keep[:, None]).any(axis=0)
        return found, (found != keep).any()

    keep, _ = lax.while_loop(lambda state: state[1], again, (real, jnp.bool_(True)))
    return jnp.zeros_like(keep).at[order].set(keep)


def _axes(boxes: Array) -> tuple[Array, Array]:
    """The directions [... 2] of the sides w and h."""
    cos, sin = jnp.cos(boxes[..., 4]), jnp.sin(boxes[..., 4])
    return jnp.stack([cos, sin], axis=-1), jnp.stack([-sin, cos], axis=-1)


def _iou(a: Array, b: Array) -> Array:
    """The IoU of two boxes [5]."""
    common = _common(a, b)
    whole = area(a) + area(b) - common
    return jnp.clip(common / jnp.where(whole > 0, whole, 1.0), 0.0, 1.0)


def _common(a: Array, b: Array) -> Array:
    """The area that two boxes [5] share.

    The shared polygon is convex. Its corners are those of either box that lie in the
    other, and where edges cross: at most eight of 24 candidates, which are sorted by
    their angle around their mean.
    """
    # About the middle: of small boxes far from the origin little would be left.
    middle = (a[:2] + b[:2]) / 2
    a, b = a.at[:2].add(-middle), b.at[:2].add(-middle)
    size = jnp.maximum(jnp.abs(a[2:4]).max(), jnp.abs(b[2:4]).max())
    ends, others = corners(a), corners(b)
    crossing, crossed = _crossings(ends, others)
    points = jnp.concatenate([ends, others, crossing])
    some = jnp.concatenate([_inside(ends, b, size), _inside(others, a, size), crossed])
    count = jnp.maximum(some.sum(), 1)
    mean = jnp.where(some[:, None], points, 0.0).sum(axis=0) / count
    around = points - mean
    angle = jnp.where(some, jnp.arctan2(around[:, 1], around[:, 0]), jnp.inf)
    order = jnp.argsort(angle)
    # What is no corner stands at the first one, and spans nothing.
    ring = jnp.where(some[order][:, None], around[order], around[order[0]])
    x, y = ring[:, 0], ring[:, 1]
    found = jnp.sum(x * jnp.roll(y, -1) - y * jnp.roll(x, -1)) / 2
    return jnp.where(some.sum() > 2, jnp.maximum(found, 0.0), 0.0)


def _inside(points: Array, box: Array, size: Array) -> Array:
    """Which points [n 2] lie in a box [5], its edge included."""
    axes = jnp.stack(_axes(box), axis=-1)
    local = jnp.abs(jnp.matmul(points - box[:2], axes, precision=_EXACT))
    return (local <= box[2:4] / 2 + _EDGE * size).all(axis=-1)


def _crossings(a: Array, b: Array) -> tuple[Array, Array]:
    """Where the edges of two rings [4 2] cross [16 2], and whether they do."""
    one, two = a[:, None], b[None]
    along, across = jnp.roll(a, -1, 0)[:, None] - one, jnp.roll(b, -1, 0)[None] - two
    apart = two - one

    def cross(p: Array, q: Array) -> Array:
        return p[..., 0] * q[..., 1] - p[..., 1] * q[..., 0]

    turn = cross(along, across)
    # Parallel edges meet in corners, if at all.
    length = jnp.linalg.norm(along, axis=-1) * jnp.linalg.norm(across, axis=-1)
    parallel = jnp.abs(turn) <= _EDGE * length
    safe = jnp.where(parallel, 1.0, turn)
    s, t = cross(apart, across) / safe, cross(apart, along) / safe
    met = ~parallel & (s >= 0) & (s <= 1) & (t >= 0) & (t <= 1)
    return (one + s[..., None] * along).reshape(16, 2), met.ravel()


_jitted = jax.jit(jax.vmap(_iou))
