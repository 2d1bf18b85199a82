"""The layers whose maps are shown where none is named."""

import re
from collections.abc import Mapping
from typing import Any

from detjax.errors import UserError
from detjax.explain.layers import IMAGES

# Pixels of the input under a cell of the coarsest map: above a stride of 32, which
# networks without padding exceed by some; below what SSD adds.
MOST = 40
LEAST = 4  # rows and columns of a map, where there is such a one
# Whose maps are looked at, the first of these that there is: what a backbone hands on,
# what is inside a classifier's, or anything.
AMONG = (r"^backbone\.body:\d+$", r"^backbone:\d+$", r"^backbone\.(?!fpn\b)", r"")

# Of a backbone that goes on beyond its classifier, as SSD's, without a way back up:
# what is detected on a finer level does not see the coarser ones.
EXTRA, LEVELS = r"^backbone\.extra\.", r"^backbone:\d+$"


def usual(
    shapes: Mapping[str, Any],
    size: tuple[int, int],
    head: str | None = None,
    coarsest: bool = True,
) -> list[str]:
    """The last of the coarsest maps of a network's backbone, or SSD's of every level.

    shapes: of its layers, as `layers.shapes` has them, for inputs of `size` (h, w).
    head: a regular expression; layers with such a name are passed over.
    coarsest: whether it is the coarsest; else all that it could be are returned.

    Raises UserError where there is none: a network of crops has no map of the picture.
    """
    images = shapes[IMAGES].shape[0] if IMAGES in shapes else None

    def fits(name: str, shape: tuple[int, ...]) -> bool:
        return (
            len(shape) == 4
            and shape[0] == images
            and name != IMAGES
            and "#" not in name
            and min(shape[1:3]) > 1
            and shape[1] * MOST >= size[0]
            and shape[2] * MOST >= size[1]
            and not (head and re.search(head, f"{name}."))
        )

    found = {name: x.shape for name, x in shapes.items() if fits(name, x.shape)}
    if coarsest and any(re.search(EXTRA, name) for name in shapes):
        return [name for name in found if re.search(LEVELS, name)]
    # Of small pictures the coarsest maps tell a left from a right at most.
    fine = {name: shape for name, shape in found.items() if min(shape[1:3]) >= LEAST}
    for pattern in AMONG:
        some = [name for name in fine or found if re.search(pattern, name)]
        if some:
            fewest = min(found[name][1] * found[name][2] for name in some)
            alike = [n for n in some if found[n][1] * found[n][2] == fewest]
            return alike[-1:] if coarsest else some
    raise UserError(
        "no layer of this model returns a map of the whole picture (networks that look "
        "at crops have none); name one with layer, or explain its pixels"
    )
