"""One family a file; `make` finds a model by the name of its constructor."""

from collections.abc import Callable
from functools import partial
from typing import Any

from detjax.errors import UserError
from detjax.models import rcnn, rcnn2014, yolact
from detjax.types import Model

MODELS: dict[str, Callable[..., Model]] = {
    "yolact": yolact.yolact,
    "rcnn": rcnn2014.rcnn,
    **{
        name: partial(yolact.yolact, **kwargs)
        for name, kwargs in yolact.ORIGINALS.items()
    },
    "fast_rcnn": rcnn.fast_rcnn,
    "faster_rcnn": rcnn.faster_rcnn,
    "faster_rcnn_vgg16": rcnn.faster_rcnn_vgg16,
    "faster_rcnn_c4": rcnn.faster_rcnn_c4,
    "mask_rcnn": rcnn.mask_rcnn,
    "keypoint_rcnn": rcnn.keypoint_rcnn,
    "ms_rcnn": rcnn.ms_rcnn,
    **{
        name: partial(rcnn.two_stage, **kwargs)
        for name, kwargs in rcnn.ORIGINALS.items()
    },
}
# The side of the square input that an original's weights were trained at.
SIDES = {name: 550 for name in yolact.ORIGINALS} | {
    "yolact_im400": 400,
    "yolact_im700": 700,
}
# Those of two stages were trained at a short side of 800 pixels, the picture's shape
# kept: a picture of 3 : 4 letterboxed into this square is as large.
LETTERBOXED = {name: 1088 for name in rcnn.ORIGINALS}


def make(name: str, **kwargs: Any) -> Model:
    """The model called `name`; keywords are those of its constructor.

    Raises UserError for an unknown name.
    """
    if name not in MODELS:
        raise UserError(f"no model is called {name!r}; choose one of {sorted(MODELS)}")
    return MODELS[name](**kwargs)
