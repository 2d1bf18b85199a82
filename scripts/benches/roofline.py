"""The least time that a program's layers could take on a device.

Every convolution and every product takes as long as its arithmetic at the device's
peak, or as moving its operands and its result once, whichever is longer; everything
between layers is taken to be free (Williams et al. 2009, for each layer by itself).
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
from jax.extend import core


class Peak(NamedTuple):
    """What a device does at most, by its data sheet."""

    tflops: float  # dense, bfloat16
    gbytes: float  # of its memory, a second


# By a part of the name that JAX knows it by.
PEAKS = {
    "H200": Peak(989, 4800),
    "H100": Peak(989, 3350),
    "A100": Peak(312, 2039),
    "L4": Peak(121, 300),
    "TPU v4": Peak(275, 1200),
    "TPU v5 lite": Peak(197, 819),
    "TPU v5": Peak(459, 2765),
    "TPU v6": Peak(918, 1640),
}


class Layer(NamedTuple):
    """A convolution or a product, and how often it runs."""

    flops: float
    bytes: int
    times: int

    def milliseconds(self, peak: Peak) -> float:
        longest = max(self.flops / peak.tflops / 1e9, self.bytes / peak.gbytes / 1e6)
        return self.times * longest


def peak() -> Peak | None:
    """This machine's, None where it is not known."""
    kind = jax.devices()[0].device_kind
    return next((found for name, found in PEAKS.items() if name in kind), None)


def milliseconds(program: Any) -> float | None:
    """The least that a jaxpr takes on this machine, None if that is unknown."""
    here = peak()
    if here is None:
        return None
    return sum(layer.milliseconds(here) for layer in layers(program))


def layers(program: Any) -> list[Layer]:
    """The layers of a jaxpr; those in a loop of unknown length count once."""
    return list(_layers(program.jaxpr, 1))


def _layers(program: Any, times: int) -> Iterator[Layer]:
    for equation in program.eqns:
        count = _FLOPS.get(equation.primitive.name)
        if count:
            moved = sum(
                v.aval.size * v.aval.dtype.itemsize
                for v in (*equation.invars, *equation.outvars)
            )
            yield Layer(count(equation), moved, times)
        inner = times * equation.params.get("length", 1)
        for part in core.jaxprs_in_params(equation.params):
            yield from _layers(part, inner)


def _convolution(equation: Any) -> float:
    dimensions = equation.params["dimension_numbers"]
    kernel = equation.invars[1].aval.shape
    outputs = kernel[dimensions.rhs_spec[0]]
    # A gradient's input is spread with zeros, which are not multiplied.
    spread = math.prod(equation.params["lhs_dilation"])
    products = math.prod(kernel) / outputs
    return 2 * equation.outvars[0].aval.size * products / spread


def _product(equation: Any) -> float:
    (summed, _), _ = equation.params["dimension_numbers"]
    shape = equation.invars[0].aval.shape
    return 2 * equation.outvars[0].aval.size * math.prod(shape[i] for i in summed)


_FLOPS = {"conv_general_dilated": _convolution, "dot_general": _product}
