"""The shapes that every room of the house agrees on.

Shape legend, used in all signatures:

    b        images in a batch
    h, w     height and width of the network's input, in pixels
    n        objects or detections of one image, padded to a fixed number
    p        priors (anchors) of one image
    c        classes, without background
    mh, mw   height and width of a mask grid that spans the whole network input
    r        height and width of a mask grid that spans a detection's box
    k        keypoints of one object

Boxes are xyxy float32 pixels of the network's input. Labels are 0..c-1. `valid` is the
only truth about padding; what lies behind it is finite and otherwise arbitrary.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from flax import linen, struct

if TYPE_CHECKING:
    # Static types know no array that is numpy's on the host and a tracer under jit;
    # shapes and dtypes are checked where they are true, by jaxtyping in the tests.
    Array = Any
else:
    Array = jax.Array | np.ndarray
Params = Any
State = Any


@struct.dataclass
class Objects:
    """Annotated objects, padded to a fixed n; leading axes are free."""

    boxes: Array  # [n 4] float32
    labels: Array  # [n] int32
    valid: Array  # [n] bool: a real object, crowds included
    crowd: Array  # [n] bool: a region that no loss may count for or against
    masks: Array | None = None  # [n mh mw] uint8 in {0, 1}
    box_masks: Array | None = None  # [n r r] uint8: the same, on a grid in each box
    keypoints: Array | None = None  # [n k 3] float32: x, y, visibility 0/1/2


@struct.dataclass
class Detections:
    """Predicted objects by falling score, padded to n; leading axes are free."""

    boxes: Array  # [n 4] float32
    scores: Array  # [n] float32
    labels: Array  # [n] int32
    valid: Array  # [n] bool
    masks: Array | None = None  # [n mh mw] float32: foreground probability
    mask_scores: Array | None = None  # [n] float32, where a head rescores masks
    box_masks: Array | None = None  # [n r r] float32: the same, on a grid in each box
    keypoints: Array | None = None  # [n k 3] float32: x, y, score
    # Whether the cells of box_masks lie where they lie, and are not torchvision's.
    aligned: bool = struct.field(pytree_node=False, default=False)


@struct.dataclass
class Proposals:
    """Boxes that may hold an object, padded to a fixed p; leading axes are free."""

    boxes: Array  # [p 4] float32
    valid: Array  # [p] bool


@struct.dataclass
class Batch:
    """What the loader hands to a train step or to `predict`."""

    images: Array  # [b h w 3] uint8 RGB
    objects: Objects  # leading axis b
    index: Array  # [b] int32: the record's place in its split
    affine: Array  # [b 2 3] float32: original pixel (x, y, 1) -> network pixel
    sizes: Array  # [b 2] int32: original height and width
    valid: Array  # [b] bool: False for images that only fill up a last batch
    cut: Array  # [b] int32: objects beyond n, which were left out
    small: Array  # [b] int32: objects under the least size, which were left out
    # [b] int32: index of the unreadable record that this one stands in for, else -1
    skipped: Array | None = None
    proposals: Proposals | None = None  # leading axis b: of detectors that make none


class Model(NamedTuple):
    """A network as three pure functions; see the shape legend above.

    Images are uint8 RGB, normalised on the device; float images are taken to be
    normalised already. `windows` [b 4], xyxy pixels, are the boxes of the pictures
    inside their padded inputs, to which what is found is clipped (None: all of the
    input); `proposals` are asked for by models that make none of their own.
    """

    init: Callable[..., tuple[Params, State]]  # (key, images)
    loss: Callable[..., tuple[jax.Array, tuple[State, dict[str, jax.Array]]]]
    # loss: (params, state, batch, key) -> scalar, (state, metrics)
    predict: Callable[..., Any]
    # predict: (params, state, images, windows=None, proposals=None)
    #          -> Detections, leading axis b
    net: linen.Module
    # (params, state, batches) -> params, once after the descent, for what is solved and
    # not descended to; batches show every training image once
    finish: Callable[..., Params] | None = None
    needs_proposals: bool = False  # in batches and in `predict`
