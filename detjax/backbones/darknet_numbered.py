"""Darknet's classifiers, with the names of its layers: their numbers in the cfg.

The reference network and Darknet-19 (Redmon and Farhadi, CVPR 2017), Extraction, which
YOLO began with (Redmon et al., CVPR 2016), and CSPDarknet-53 (Wang et al. 2020;
Bochkovskiy et al. 2020). The variables are those of the cfg's own network, so that
darknet's weight files fit.

    images   [b h w 3], in 0..1 for darknet's weights
    c2..c5   what the last layers at strides 4, 8, 16 and 32 leave
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen

from detjax.errors import UserError
from detjax.nn.darknet import Convolution
from detjax.nn.pool import max_pool
from detjax.nn.remat import rematerialised


class Spec(NamedTuple):
    """A network: FILTERS, FILTERS/SIZE or FILTERS/SIZE/STRIDE is a convolution, of 3x3
    if not said; P halves by maxima; + adds the output of the layer three before; <n,m
    joins the outputs of the n-th and m-th layer before; at the end A is the mean over
    the map and C the convolution to classes.
    """

    body: str
    end: str = "A C"
    activation: str = "leaky"
    last: str = "linear"  # activation of C


def _csp(filters: int, blocks: int, wide: bool = False) -> str:
    """A stage of CSPDarknet-53: half of the channels pass by the residual blocks."""
    part = filters if wide else filters // 2
    block = f"{filters // 2}/1 {part} +"
    return (
        f"{filters}/3/2 {part}/1 <2 {part}/1 {' '.join([block] * blocks)} "
        f"{part}/1 <1,{3 * blocks + 4} {filters}/1"
    )


_19 = "32 P 64 P 128 64/1 128 P 256 128/1 256 P 512 256/1 512 256/1 512"
SPECS = {
    "darknet_reference": Spec("16 P 32 P 64 P 128 P 256 P 512 P 1024"),
    "darknet19": Spec(f"{_19} P 1024 512/1 1024 512/1 1024", "C A"),
    "extraction": Spec(
        "64/7/2 P 192 P 128/1 256 256/1 512 P "
        f"{'256/1 512 ' * 4}512/1 1024 P 512/1 1024 512/1 1024",
        "C A",
        last="leaky",
    ),
    "cspdarknet53": Spec(
        " ".join(
            [
                "32",
                _csp(64, 1, wide=True),
                _csp(128, 2),
                _csp(256, 8),
                _csp(512, 8),
                _csp(1024, 4),
            ]
        ),
        activation="mish",
    ),
}


class Numbered(linen.Module):
    """Features (c2, c3, c4, c5), or class logits [b num_classes] where that is set.

    `width` is the first convolution's filters, by which all layers scale. `norm`
    "batch" is darknet's, which adds 1e-6 to the deviation. With `remat` the backward
    pass computes what is inside each convolution again.
    """

    spec: Spec
    width: int | None = None  # None: of the original
    stages: int = 4
    norm: str = "batch"
    num_classes: int | None = None
    remat: bool = False
    dtype: Any = jnp.float32

    @property
    def head(self) -> str:
        """The convolution to classes."""
        layers = [*self.spec.body.split(), *self.spec.end.split()]
        return rf"{layers.index('C')}\."

    @linen.compact
    def __call__(self, images, train: bool = False):
        body = self.spec.body.split()
        first = int(body[0].partition("/")[0])
        scale = (self.width or first) / first
        features: list[Any] = []
        found: list[Any] = []
        x, stride = images.astype(self.dtype), 1
        for i, layer in enumerate(body):
            if layer == "P" or layer.endswith("/2"):
                if stride >= 4:
                    features.append(x)
                if self.num_classes is None and len(features) == self.stages:
                    return tuple(features)
                stride *= 2
            if layer == "P":
                x = max_pool(x, 2, 2)
            elif layer == "+":
                x = x + found[i - 3]
            elif layer[0] == "<":
                parts = [found[i - int(n)] for n in layer[1:].split(",")]
                x = jnp.concatenate(parts, axis=-1)
            else:
                filters, *kind = map(int, layer.split("/"))
                size, step = (*kind, *(3, 1)[len(kind) :])
                filters = max(1, round(filters * scale))
                x = self._convolved(x, i, filters, size, step, train)
            found.append(x)
        if self.num_classes is None:
            return (*features, x)
        for i, layer in enumerate(self.spec.end.split(), start=len(body)):
            if layer == "A":
                x = x.mean(axis=(1, 2), keepdims=True)
            else:
                x = self._convolved(x, i, self.num_classes, 1, 1, train)
        return x[:, 0, 0].astype(jnp.float32)

    def _convolved(self, x, i, filters, size, stride, train):
        classes = i >= len(self.spec.body.split())
        kind = rematerialised(Convolution, self.remat)
        layer = kind(
            filters,
            size,
            stride,
            size // 2,
            normed=not classes,
            activation=self.spec.last if classes else self.spec.activation,
            dtype=self.dtype,
            norm=self.norm,
            name=str(i),
        )
        return layer(x, train)


def darknet_numbered(name: str, /, **kwargs: Any) -> Numbered:
    """The member called `name` of `SPECS`; keywords as in `Numbered`.

    Raises UserError for an unknown name.
    """
    if name not in SPECS:
        raise UserError(f"no darknet is called {name!r}; choose one of {[*SPECS]}")
    return Numbered(SPECS[name], **kwargs)
