"""One family a file; `make` finds a model by the name of its constructor."""

from collections.abc import Callable
from functools import partial
from typing import Any

from detjax.models import yolact
from detjax.types import Model

MODELS: dict[str, Callable[..., Model]] = {
    "yolact": yolact.yolact,
    **{
        name: partial(yolact.yolact, **kwargs)
        for name, kwargs in yolact.ORIGINALS.items()
    },
}
# The side of the square input that an original's weights were trained at.
SIDES = {name: 550 for name in yolact.ORIGINALS} | {
    "yolact_im400": 400,
    "yolact_im700": 700,
}


def make(name: str, **kwargs: Any) -> Model:
    """The model called `name`; keywords are those of its constructor.

    Raises ValueError for an unknown name.
    """
    if name not in MODELS:
        raise ValueError(f"no model is called {name!r}; choose one of {sorted(MODELS)}")
    return MODELS[name](**kwargs)
