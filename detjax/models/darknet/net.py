"""A linen module of the layers of a cfg.

x, y     maps [b h w c] in 0..1 going in; those, or rows [b n], coming out of layers
"""

from typing import Any

import jax.numpy as jnp
from flax import linen

from detjax.models.darknet import layers
from detjax.models.darknet.cfg import HEADS, Cfg, Section
from detjax.nn.darknet import ACTIVATIONS, Convolution
from detjax.nn.dropblock import DropBlock
from detjax.nn.images import NORMALIZED, normalize


class Net(linen.Module):
    """Images [b h w c] -> the outputs of all layers, by index.

    A head's own output is what it reads.
    """

    cfg: Cfg
    dtype: Any = jnp.float32
    pixels: str = NORMALIZED

    @linen.compact
    def __call__(self, images, train: bool = False) -> list[Any]:
        found: list[Any] = []
        x = normalize(images, self.pixels, self.dtype)
        for index, section in enumerate(self.cfg.layers):
            x = _layer(section, index, x, found, train, self.dtype)
            found.append(x)
        return found


def _layer(
    section: Section, index: int, x: Any, found: list[Any], train: bool, dtype: Any
) -> Any:
    """The output of layer `index`, whose input is `x`, after those `found`."""
    _check(section)
    make = LAYERS[section.kind]
    return make(section, index, x, found, train, dtype)


def _activation(section: Section, default: str = "logistic") -> str:
    known = {name: name for name in ACTIVATIONS}
    return section.one_of("activation", known, default)


# Options of the later darknet that would make another layer, by kind, and the values
# with which they do not.
OTHERS: dict[str, dict[str, tuple[str, ...]]] = {
    "convolutional": {
        **dict.fromkeys(("stride_x", "stride_y", "dilation"), ("1",)),
        **dict.fromkeys(
            ("antialiasing", "binary", "xnor", "cbn", "assisted_excitation", "sway"),
            ("0",),
        ),
        **dict.fromkeys(("rotate", "stretch", "stretch_sway", "coordconv"), ("0",)),
    },
    "maxpool": {"maxpool_depth": ("0",), "antialiasing": ("0",)},
    "shortcut": {"weights_type": ("none",)},
}


def _check(section: Section) -> None:
    """Raises UserError for an option that would make another layer."""
    for name, values in OTHERS.get(section.kind, {}).items():
        if name in section and section.text(name) not in values:
            section.refuse(f"{name}={section.text(name)} is not built here")


def _convolutional(section, index, x, found, train, dtype):
    size = section.whole("size", 1)
    padding = size // 2 if section.flag("pad") else section.whole("padding", 0)
    return Convolution(
        section.whole("filters", 1),
        size,
        section.whole("stride", 1),
        padding,
        section.whole("groups", 1),
        section.flag("batch_normalize"),
        _activation(section),
        dtype,
        name=str(index),
    )(x, train)


def _connected(section, index, x, found, train, dtype):
    return layers.Connected(
        section.whole("output", 1),
        section.flag("batch_normalize"),
        _activation(section),
        dtype,
        name=str(index),
    )(x, train)


def _local(section, index, x, found, train, dtype):
    return layers.Local(
        section.whole("filters", 1),
        section.whole("size", 1),
        section.whole("stride", 1),
        section.whole("pad", 0),
        _activation(section),
        dtype,
        name=str(index),
    )(x, train)


def _maxpool(section, index, x, found, train, dtype):
    stride = section.whole("stride", 1)
    size = section.whole("size", stride)
    return layers.maxpool(x, size, stride, section.whole("padding", size - 1))


def _avgpool(section, index, x, found, train, dtype):
    return x.mean(axis=(1, 2), keepdims=True)


def _route(section, index, x, found, train, dtype):
    parts = [found[place(section, index, i)] for i in section.wholes("layers")]
    if not parts:
        section.refuse("there is no layers=; give the indices of layers")
    shapes = {part.shape[1:3] for part in parts}
    if len(shapes) > 1:
        said = " and ".join(f"{h} x {w}" for h, w in sorted(shapes))
        section.refuse(
            f"it joins maps of {said} cells; sides of the input that are multiples of "
            "32, or of 64, make them alike"
        )
    groups, which = section.whole("groups", 1), section.whole("group_id", 0)
    if groups > 1:
        width = [part.shape[-1] // groups for part in parts]
        parts = [
            part[..., which * n : (which + 1) * n]
            for part, n in zip(parts, width, strict=True)
        ]
    return jnp.concatenate(parts, axis=-1)


def _shortcut(section, index, x, found, train, dtype):
    for i in section.wholes("from"):
        x = layers.shortcut(x, found[place(section, index, i)])
    return ACTIVATIONS[_activation(section, "linear")](x)


def _reorg(section, index, x, found, train, dtype):
    for name in ("reverse", "flatten", "extra"):
        if section.flag(name):
            section.refuse(f"{name}=1 is not built here")
    stride, (h, w) = section.whole("stride", 1), x.shape[1:3]
    if h % stride or w % stride or x.shape[3] % stride**2:
        section.refuse(
            f"it divides maps of {h} x {w} cells and {x.shape[3]} channels by "
            f"{stride}; the sides of inputs must be multiples of the network's stride"
        )
    return layers.reorg(x, stride)


def _upsample(section, index, x, found, train, dtype):
    return layers.upsample(x, section.whole("stride", 2), section.number("scale", 1))


def _crop(section, index, x, found, train, dtype):
    """The middle; darknet trains on a random part, which is the data's to augment."""
    size = section.whole("crop_height", 1), section.whole("crop_width", 1)
    return layers.crop(x, size, not section.flag("noadjust"))


def _dropout(section, index, x, found, train, dtype):
    rate = section.number("probability", 0.5)
    if section.flag("dropblock"):
        return _drop_block(section, index, rate, x, train)
    return linen.Dropout(rate, deterministic=not train, name=str(index))(x)


def _drop_block(section, index, rate, x, train):
    """Blocks of dropblock_size_abs= cells, or of a share of the map, 7 by default.

    The later darknet lets blocks and probability grow in the first half of a training;
    here they are what they end with, from the first step on.
    """
    share, cells = section.number("dropblock_size_rel", 0), None
    if "dropblock_size_abs" in section or not share:
        share, cells = None, section.whole("dropblock_size_abs", 7)
    return DropBlock(rate, cells=cells, share=share, name=str(index))(x, train)


def _softmax(section, index, x, found, train, dtype):
    groups, temperature = section.whole("groups", 1), section.number("temperature", 1)
    return layers.softmax(x, groups, temperature)


def _scale_channels(section, index, x, found, train, dtype):
    """Squeeze and excitation: the layer `from` times [b 1 1 c]."""
    [i] = section.wholes("from")
    y = found[place(section, index, i)] * x
    return ACTIVATIONS[_activation(section, "linear")](y)


def _sam(section, index, x, found, train, dtype):
    """Spatial attention: the layer `from` times this one's input."""
    return _scale_channels(section, index, x, found, train, dtype)


def _same(section, index, x, found, train, dtype):
    return x


LAYERS = {
    "convolutional": _convolutional,
    "connected": _connected,
    "local": _local,
    "maxpool": _maxpool,
    "avgpool": _avgpool,
    "route": _route,
    "shortcut": _shortcut,
    "reorg": _reorg,
    "upsample": _upsample,
    "crop": _crop,
    "dropout": _dropout,
    "softmax": _softmax,
    "scale_channels": _scale_channels,
    "sam": _sam,
    "cost": _same,
    **dict.fromkeys(HEADS, _same),
}


def place(section: Section, index: int, other: int) -> int:
    """The index of the layer that layer `index` calls `other`: negative is before it.

    Raises UserError where there is no such layer before it.
    """
    at = index + other if other < 0 else other
    if not 0 <= at < index:
        section.refuse(
            f"layer {other} is not there: this is layer {index}, and those before it "
            "can be read"
        )
    return at
