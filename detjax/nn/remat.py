"""Blocks whose insides are computed again for the gradient."""

from typing import Any

from flax import linen


def rematerialised(block: type[linen.Module], remat: bool) -> Any:
    """The module `block`, called with an input and `train`; as it is without `remat`.

    With it the backward pass keeps what enters a block and not what is inside: less
    memory, more time. Names and parameters stay what they are.
    """
    # 2 is `train`, counted from the module itself.
    return linen.remat(block, static_argnums=(2,)) if remat else block
