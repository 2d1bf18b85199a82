"""How a network's parameters and its other variables begin."""

from collections.abc import Callable
from typing import Any

from flax import linen

from detjax.types import Params, State


def initialiser(net: linen.Module) -> Callable[..., tuple[Params, State]]:
    """`Model.init` of a network: (key, its input) -> parameters, other variables."""

    def init(key, images):
        variables: Any = net.init(key, images)
        params = variables.pop("params")
        return params, variables

    return init
