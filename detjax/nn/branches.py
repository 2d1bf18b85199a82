"""Heads that all levels of a pyramid share: convolutions, then outputs of each place.

levels   [b h w c], finest first
p        places or priors over all levels, level by level
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen

from detjax.nn.norm import norm

small = jax.nn.initializers.normal(0.01)


class Output(NamedTuple):
    """One output of a `Branch`."""

    name: str
    width: int
    per_place: int = 1
    bias: float = 0.0  # that it begins with


class Branch(linen.Module):
    """Levels -> an array [b p width] float32 for each of `outputs`.

    `depth` 3x3 convolutions with ReLU, as wide as the levels, lead to the 3x3
    convolutions of the outputs. With a `norm`, it follows each of the first.

    Names are torchvision's, where the layers lie in blocks "conv.0.0", "conv.0.1", or
    `flat` in one list of convolution, norm, ReLU: "conv.0", "conv.1", "conv.3". Only in
    the latter convolutions before a norm have a bias.
    """

    outputs: tuple[Output, ...]
    depth: int = 4
    norm: str | None = None
    norm_eps: float = 1e-5
    flat: bool = False
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, levels):
        layers = [self._layer(i, levels[0].shape[-1]) for i in range(self.depth)]
        last = [
            self._conv(output.width * output.per_place, output.name, bias=output.bias)
            for output in self.outputs
        ]
        found: list[list] = [[] for _ in self.outputs]
        for x in levels:
            for convolved, normed in layers:
                x = convolved(x)
                x = linen.relu(x if normed is None else normed(x))
            for conv, output, joined in zip(last, self.outputs, found, strict=True):
                joined.append(conv(x).reshape(x.shape[0], -1, output.width))
        return tuple(jnp.concatenate(j, axis=1).astype(jnp.float32) for j in found)

    def _layer(self, i, features):
        """A convolution and its norm, or None."""
        if self.flat:
            names = f"conv.{3 * i}", f"conv.{3 * i + 1}"
        else:
            names = f"conv.{i}.0", f"conv.{i}.1"
        convolved = self._conv(
            features, names[0], use_bias=self.flat or self.norm is None
        )
        if self.norm is None:
            return convolved, None
        return convolved, norm(
            self.norm,
            name=names[1],
            channels=features,
            train=False,
            epsilon=self.norm_eps,
            dtype=self.dtype,
        )

    def _conv(self, features, name, *, use_bias=True, bias=0.0):
        return linen.Conv(
            features,
            (3, 3),
            padding=1,
            use_bias=use_bias,
            kernel_init=small,
            bias_init=jax.nn.initializers.constant(bias),
            dtype=self.dtype,
            name=name,
        )
