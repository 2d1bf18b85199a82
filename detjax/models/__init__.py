"""One family a file; `make` finds a model by the name of its constructor."""

from collections.abc import Callable
from functools import partial
from typing import Any

from detjax.models.yolact import ORIGINALS, yolact
from detjax.types import Model

MODELS: dict[str, Callable[..., Model]] = {
    "yolact": yolact,
    **{name: partial(yolact, **kwargs) for name, kwargs in ORIGINALS.items()},
}


def make(name: str, **kwargs: Any) -> Model:
    """The model called `name`; keywords are those of its constructor.

    Raises ValueError for an unknown name.
    """
    if name not in MODELS:
        raise ValueError(f"no model is called {name!r}; choose one of {sorted(MODELS)}")
    return MODELS[name](**kwargs)
