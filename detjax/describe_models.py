"""The classifiers in a table, and one of them layer by layer.

A multiply-accumulate is a product with a weight of a convolution or a dense layer. They
are counted from the shapes of weights and outputs, so that they are the same on every
device: linen.tabulate's FLOPs are those of the program that XLA makes of a layer.
"""

import math
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen

from detjax import backbones
from detjax.backbones.facts import CERTIFIED, FACTS


class Layer(NamedTuple):
    """A layer with weights of its own."""

    name: str
    kind: str
    output: tuple[int, ...]  # without the batch
    parameters: int
    macs: int


def layers(net: linen.Module, side: int) -> list[Layer]:
    """The layers of `net` for one image of `side` pixels, in the order they run."""
    found: list[Layer] = []

    def watch(run, args, kwargs, context):
        out = run(*args, **kwargs)
        module = context.module
        held = module.variables.get("params", {})
        own = {k: x for k, x in held.items() if hasattr(x, "shape")}
        if own and context.method_name == "__call__" and hasattr(out, "shape"):
            weights = sum(x.size for x in own.values() if x.ndim > 1)
            found.append(
                Layer(
                    ".".join(module.path) or type(module).__name__,
                    type(module).__name__,
                    out.shape[1:],
                    sum(x.size for x in own.values()),
                    weights * math.prod(out.shape[1:-1]),
                )
            )
        return out

    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    with linen.intercept_methods(watch):
        jax.eval_shape(net.init, jax.random.key(0), image)
    return found


def classifier(name: str) -> list[Layer]:
    """The layers of the classifier called `name` at its own size."""
    fact = FACTS[name]
    return layers(backbones.make(name, num_classes=fact.classes), fact.side)


def row(name: str) -> dict[str, Any]:
    """What the table says of `name`."""
    fact, held = FACTS[name], classifier(name)
    return {
        "name": name,
        "parameters": f"{sum(each.parameters for each in held):,}",
        "GMAC": f"{sum(each.macs for each in held) / 1e9:.3g}",
        "input": f"{fact.side}",
        "top-1": "" if fact.top1 is None else f"{fact.top1:.1f} ({fact.source})",
        "paper": fact.paper,
        "certified": "yes" if name in CERTIFIED else "",
    }


def rows() -> list[dict[str, Any]]:
    """A row for each of the classifiers, by name."""
    return [row(name) for name in backbones.FAMILIES]


def of(name: str) -> list[dict[str, Any]]:
    """A row for each layer of the classifier called `name`, and one of their sums.

    Raises UserError for an unknown name.
    """
    backbones.make(name)
    held = classifier(name)
    total = Layer(
        "all",
        "",
        (),
        sum(each.parameters for each in held),
        sum(each.macs for each in held),
    )
    return [
        {
            "layer": each.name,
            "kind": each.kind,
            "output": " x ".join(map(str, each.output)),
            "parameters": f"{each.parameters:,}",
            "MMAC": f"{each.macs / 1e6:,.2f}",
        }
        for each in [*held, total]
    ]


def text(rows: list[dict[str, Any]], *, markdown: bool = False) -> str:
    """A table of `rows`, of one column a key; numbers stand to the right."""
    lines = [[*rows[0]], *([*each.values()] for each in rows)]
    if markdown:
        lines.insert(1, ["---"] * len(lines[0]))
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)
    columns = [*zip(*lines, strict=True)]
    right = [all(re.fullmatch(r"[\d.,]*", x) for x in column[1:]) for column in columns]
    widths = [max(map(len, column)) for column in columns]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if numbers else cell.ljust(width)
            for cell, width, numbers in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )
