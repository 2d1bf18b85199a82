"""Feature extractors, one family a file, with the parameter names of torchvision."""

from collections.abc import Callable
from typing import Annotated, Any

from flax import linen

from detjax.backbones import alexnet, darknet, resnet, vgg
from detjax.errors import UserError
from detjax.settings import OneOf

FAMILIES: dict[str, Callable[..., linen.Module]] = {
    **{name: resnet.resnet for name in resnet.SPECS},
    **{name: vgg.vgg for name in vgg.NAMES},
    "darknet53": darknet.darknet,
    "alexnet": alexnet.alexnet,
}
Name = Annotated[str, OneOf(tuple(FAMILIES))]


def make(name: str, /, **kwargs: Any) -> linen.Module:
    """The backbone called `name`: images [b h w 3] -> features, finest first.

    Keywords are those of the family's module; None is the family's default, of families
    too that have no such keyword. Raises UserError for an unknown name.
    """
    if name not in FAMILIES:
        raise UserError(f"no backbone is called {name!r}; choose one of {[*FAMILIES]}")
    given = {key: value for key, value in kwargs.items() if value is not None}
    return FAMILIES[name](name, **given)
