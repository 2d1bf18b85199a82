"""Points of objects as maps of Gaussians, which detectors of points are trained on.

Shape legend:

    n        points of one image
    mh, mw   height and width of a map
    c        classes

Cells are integers; a Gaussian of radius r lies on (2r + 1)^2 of them.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from detjax.types import Array, Objects

# A Gaussian is 0 where it is below this share of its maximum: float32's resolution.
_LEAST = float(jnp.finfo(jnp.float32).eps)


def radius(sides: Float[Array, "n 2"], min_overlap: float = 0.3) -> Float[Array, "n"]:
    """How far the corners of a box [w h] may move while its IoU is `min_overlap`.

    The least of three cases: one corner inside and one outside the box, both inside,
    both outside. A whole number, rounded down, at least 0.

    Law and Deng 2018 (CornerNet), section 3.2, with the roots of its code. CenterNet's
    code has others: see `centernet_radius`.
    """
    w, h = sides[:, 0], sides[:, 1]
    around, area, o = w + h, w * h, min_overlap
    one = _root(1.0, -around, area * (1 - o) / (1 + o), -1)
    inside = _root(4.0, -2 * around, area * (1 - o), -1)
    outside = _root(4 * o, 2 * o * around, -area * (1 - o), 1)
    return _whole(one, inside, outside)


def centernet_radius(
    sides: Float[Array, "n 2"], min_overlap: float = 0.7
) -> Float[Array, "n"]:
    """`radius`, by the roots that the code of CenterNet and its descendants takes.

    They are those of an earlier CornerNet: each root has a divisor of 2 and the larger
    sign, so that they say more than the overlap does. Zhou et al. 2019, section 3.
    """
    w, h = sides[:, 0], sides[:, 1]
    around, area, o = w + h, w * h, min_overlap
    roots = [
        (b + jnp.sqrt(jnp.maximum(b**2 - 4 * a * c, 0))) / 2
        for a, b, c in (
            (1.0, around, area * (1 - o) / (1 + o)),
            (4.0, 2 * around, area * (1 - o)),
            (4 * o, -2 * o * around, -area * (1 - o)),
        )
    ]
    return _whole(*roots)


def _root(a: float, b: Array, c: Array, sign: int) -> Array:
    """A solution of a x^2 + b x + c = 0."""
    return (-b + sign * jnp.sqrt(jnp.maximum(b**2 - 4 * a * c, 0))) / (2 * a)


def _whole(*roots: Array) -> Array:
    least = jnp.minimum(jnp.minimum(*roots[:2]), roots[2])
    return jnp.maximum(jnp.floor(least), 0)


def splat(
    cells: Int[Array, "n 2"],
    radii: Float[Array, "n"],
    labels: Int[Array, "n"],
    valid: Bool[Array, "n"],
    size: tuple[int, int],
    classes: int,
) -> Float[Array, "mh mw c"]:
    """A map of each class, 1 at the cells (x, y) of its points and less around them.

    exp(-d^2 / (2 s^2)), s a sixth of the Gaussian's diameter 2r + 1; where several
    meet, the largest counts. Points outside the map and those that are not `valid` are
    not drawn.

    Law and Deng 2018 (CornerNet), section 3.2.
    """
    h, w = size
    x, y = cells[:, 0], cells[:, 1]
    some = valid & (x >= 0) & (y >= 0) & (x < w) & (y < h)
    across, down = _profile(x, radii, w), _profile(y, radii, h)
    drawn = down[:, :, None] * across[:, None, :]
    drawn = jnp.where((drawn >= _LEAST) & some[:, None, None], drawn, 0.0)
    # Classes without a point have an empty maximum, -inf.
    maps = jax.ops.segment_max(drawn, jnp.where(some, labels, classes), classes)
    return jnp.moveaxis(jnp.maximum(maps, 0.0), 0, -1)


def crowded(
    objects: Objects, scale: Float[Array, "2"], size: tuple[int, int]
) -> Bool[Array, "mh mw"]:
    """The cells whose centre lies in a crowd region; `scale` is cells a pixel, x, y."""
    crowd = (objects.valid & objects.crowd)[:, None]
    x, y = ((jnp.arange(n) + 0.5) / s for n, s in zip(size[::-1], scale, strict=True))
    x1, y1, x2, y2 = (side[:, None] for side in objects.boxes.T)
    across, down = (x > x1) & (x < x2), (y > y1) & (y < y2) & crowd
    return (down[:, :, None] & across[:, None, :]).any(axis=0)


def _profile(at: Array, radii: Array, cells: int) -> Array:
    """A Gaussian along one axis [n cells], 0 beyond its radius."""
    far = jnp.abs(jnp.arange(cells) - at[:, None])
    deviation = (2 * radii[:, None] + 1) / 6
    inside = far <= radii[:, None]
    return jnp.where(inside, jnp.exp(-(far**2) / (2 * deviation**2)), 0.0)
