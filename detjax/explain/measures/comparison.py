"""Methods beside each other: what each measure says of them over a data set.

b images
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from detjax.errors import UserError
from detjax.explain.layers import Predict
from detjax.explain.measures import pointing, randomised
from detjax.explain.measures.curves import Curves, curves
from detjax.explain.methods import Method
from detjax.types import Array, Explained, Inputs, Subject


class Compared(NamedTuple):
    """Means over images, by method."""

    table: dict[str, dict[str, float]]  # by method and measure, which may be missing
    curves: dict[str, Curves]  # [s+1] each
    images: int


def compared(
    predict: Predict,
    params: Any,
    state: Any,
    fresh: tuple[Any, Any],
    batches: Iterable[tuple[Inputs, Subject]],
    methods: Mapping[str, Method],
    explained: Explained,
    names: Sequence[str],
    places: Sequence[int] = (),
    steps: int = 32,
    sigma: float = 5.0,
    margin: int = 15,
    progress: Callable[[int], None] = lambda count: None,
) -> Compared:
    """`methods` by the measures of this folder.

    batches: inputs, and what is explained of them.
    fresh: another draw of (`params`, `state`).
    names, places: see `randomised.correlations`; without places none is randomised.
    steps, sigma: of `curves`; margin: of `pointing.hits`.
    progress: is told the number of images so far.

    Measures are "insertion" and "deletion", "pointing" and "inside", and "cascading"
    and "independent": the mean over layers of how alike maps stay when layers are
    randomised. Raises UserError without an image.
    """
    programs = {
        name: jax.jit(
            _measured(predict, method, explained, names, places, steps, sigma, margin)
        )
        for name, method in methods.items()
    }
    sums: dict[str, Any] = {}
    number = 0
    for inputs, (which, real, truth) in batches:
        if not real.any():
            continue
        number += int(real.sum())
        for name, call in programs.items():
            found = jax.device_get(call(params, state, fresh, inputs, which, truth))
            total = jax.tree.map(lambda x, keep=real: x[keep].sum(axis=0), found)
            sums[name] = (
                jax.tree.map(np.add, sums[name], total) if name in sums else total
            )
        progress(number)
    if not number:
        raise UserError(
            "there is no image with something to explain, to compare methods on"
        )
    means = jax.tree.map(lambda x: x / number, sums)
    return Compared(
        {
            name: {key: float(value) for key, value in means[name][0].items()}
            for name in methods
        },
        {name: means[name][1] for name in methods},
        number,
    )


def _measured(
    predict: Predict,
    method: Method,
    explained: Explained,
    names: Sequence[str],
    places: Sequence[int],
    steps: int,
    sigma: float,
    margin: int,
) -> Callable[..., tuple[dict[str, Array], Curves]]:
    """(params, state, fresh, inputs, which, truth) -> measures [b], curves [b s+1]."""

    def call(
        params: Any,
        state: Any,
        fresh: tuple[Any, Any],
        inputs: Inputs,
        which: Any,
        truth: Array | None,
    ) -> tuple[dict[str, Array], Curves]:
        explain = method(predict, lambda answers: explained.score(answers, which))
        maps = explain(params, state, inputs)[0]
        changed = curves(
            predict,
            lambda answers: explained.probability(answers, which),
            steps,
            sigma,
            chunk=1,  # images come in batches
        )(params, state, inputs, maps)
        insertion, deletion = changed.areas()
        found = {"insertion": insertion, "deletion": deletion}
        if truth is not None:
            found["pointing"] = pointing.hits(maps, truth, margin).astype(jnp.float32)
            found["inside"] = pointing.share_inside(maps, truth)
        for name, cascade in (("cascading", True), ("independent", False)):
            if places:
                alike = randomised.correlations(explain, names, places, cascade)
                found[name] = alike(params, state, fresh, inputs).mean(axis=0)
        return found, changed

    return call
