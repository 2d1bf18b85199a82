"""Feature extractors, one family a file, with the parameter names of torchvision."""

import re
from collections.abc import Callable, Iterable
from typing import Annotated, Any

from flax import linen

from detjax.backbones import (
    alexnet,
    darknet,
    darknet_numbered,
    densenet,
    dla,
    googlenet,
    inception,
    inception_resnet,
    lenet,
    mobilenet,
    mobilenet_v3,
    nin,
    resnet,
    shufflenet,
    shufflenet_v2,
    squeezenet,
    vgg,
    xception,
)
from detjax.errors import UserError
from detjax.settings import OneOf

FAMILIES: dict[str, Callable[..., linen.Module]] = {
    **{name: resnet.resnet for name in resnet.SPECS},
    **{name: vgg.vgg for name in vgg.NAMES},
    "darknet53": darknet.darknet,
    **{name: darknet_numbered.darknet_numbered for name in darknet_numbered.SPECS},
    "alexnet": alexnet.alexnet,
    **{name: mobilenet.mobilenet for name in mobilenet.MODULES},
    **{name: mobilenet_v3.mobilenet_v3 for name in mobilenet_v3.SPECS},
    **{name: squeezenet.squeezenet for name in squeezenet.SPECS},
    **{name: shufflenet.shufflenet for name in shufflenet.SPECS},
    **{name: shufflenet_v2.shufflenet_v2 for name in shufflenet_v2.SPECS},
    **{name: lenet.lenet for name in lenet.NAMES},
    **{name: nin.nin for name in nin.SPECS},
    **{name: googlenet.googlenet for name in googlenet.NAMES},
    **{name: inception.inception for name in inception.NAMES},
    **{name: inception_resnet.inception_resnet for name in inception_resnet.NAMES},
    **{name: xception.xception for name in xception.SPECS},
    **{name: densenet.densenet for name in densenet.SPECS},
    **{name: dla.dla for name in dla.SPECS},
}
Name = Annotated[str, OneOf(tuple(FAMILIES))]


def make(name: str, /, **kwargs: Any) -> linen.Module:
    """The backbone called `name`: images [b h w 3] -> features, finest first.

    Keywords are those of the family's module; None is the family's default, of families
    too that have no such keyword. Raises UserError for an unknown name, and for a
    keyword that a family does not have.
    """
    if name not in FAMILIES:
        raise UserError(f"no backbone is called {name!r}; choose one of {[*FAMILIES]}")
    given = {key: value for key, value in kwargs.items() if value is not None}
    try:
        return FAMILIES[name](name, **given)
    except TypeError as error:
        found = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if not found or found[1] not in given:
            raise
        raise UserError(
            f"{name} has no setting {found[1]}; leave out {found[1]}="
            f"{given[found[1]]!r}"
        ) from None


def implied(name: str, keys: Iterable[str]) -> dict[str, Any]:
    """The keywords by which backbone `name` has all that a file of `keys` has.

    Auxiliary classifiers, which exist in training alone, are in some files.
    """
    pattern = getattr(make(name), "auxiliary_head", None)
    if pattern is None or not any(re.match(pattern, key) for key in keys):
        return {}
    return {"auxiliary": True}
