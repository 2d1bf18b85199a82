"""YOLACT's network: a backbone, a pyramid, and heads that its levels share."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from detjax import backbones
from detjax.nn.fpn import FPN
from detjax.nn.images import normalize
from detjax.nn.norm import Norm
from detjax.ops import anchors, fitting, resize
from detjax.settings import Count, NotEmpty, Positive, Range, Whole
from detjax.types import Array, PriorLevel

xavier = jax.nn.initializers.xavier_uniform()


@dataclasses.dataclass(frozen=True)
class Backbone:
    """The network below the pyramid, and which of its features that takes.

    name: of the network.
    width: channels of its first stage; the published ones if None.
    deform_every: every n-th block has a deformable convolution (YOLACT++); 0 is none.
    levels: the numbers of the features that are read, rising; 2 is stride 4.
    norm: of all its layers; the paper fine-tunes with "frozen", new runs want "batch".
    remat: trains in less memory and more time: the insides of blocks are computed again
        for the gradient.
    """

    name: backbones.Name = "resnet101"
    width: Count | None = None
    deform_every: Whole = 0
    levels: Annotated[tuple[Annotated[int, Range(2, 5)], ...], NotEmpty()] = (3, 4, 5)
    norm: Norm = "batch"
    remat: bool = False

    def module(self, dtype: Any, name: str) -> linen.Module:
        """Images -> features from level 2 up to the last that is needed."""
        return backbones.make(
            self.name,
            width=self.width,
            deform_every=self.deform_every or None,
            stages=max(self.levels) - 1,
            norm=self.norm,
            remat=self.remat,
            dtype=dtype,
            name=name,
        )


@dataclasses.dataclass(frozen=True)
class Pyramid:
    """The feature pyramid: one level for each of the backbone's, and coarser ones.

    features: channels of the pyramid and of the heads.
    extra_levels: coarser levels, each half the one before.
    """

    features: Count = 256
    extra_levels: Whole = 2

    def module(self, dtype: Any, name: str) -> FPN:
        return FPN(
            self.features,
            extra_levels=self.extra_levels,
            upsample="bilinear",
            relu=True,
            dtype=dtype,
            name=name,
        )


Sides = Annotated[tuple[Positive, ...], NotEmpty()]


@dataclasses.dataclass(frozen=True)
class Priors:
    """The priors of every location: all sizes of its level by all ratios.

    sizes: sides in pixels of the input, a tuple for each level.
    ratios: widths over heights.
    square: all priors are squares as high as they are wide, as in the authors' code;
        see `anchors.grid`.
    """

    sizes: tuple[Sides, ...] = ((24,), (48,), (96,), (192,), (384,))
    ratios: Sides = (1, 0.5, 2)
    square: bool = False

    @property
    def per_location(self) -> int:
        return len(self.sizes[0]) * len(self.ratios)

    def grid(
        self, level_shapes: Sequence[tuple[int, int]], image_size: tuple[int, int]
    ) -> np.ndarray:
        """The priors [p 4] of all levels, whose (h, w) are `level_shapes`."""
        return anchors.placed(self.levels(level_shapes, image_size))

    def levels(
        self, level_shapes: Sequence[tuple[int, int]], image_size: tuple[int, int]
    ) -> list[PriorLevel]:
        """The levels that these are placed on."""
        return anchors.grid_levels(
            level_shapes, image_size, self.sizes, self.ratios, square=self.square
        )

    def fitted(
        self, levels: Sequence[PriorLevel], boxes: np.ndarray, positive: float
    ) -> dict[str, Any]:
        """Settings of as many priors on `levels` that fit objects' boxes [n 4]."""
        sizes, ratios = fitting.sizes_and_ratios(
            boxes, levels, self.sizes, self.ratios, positive
        )
        found = {"sizes": tuple(map(tuple, sizes)), "ratios": tuple(ratios)}
        # A square prior has no ratio to fit.
        return found | ({"square": False} if self.square else {})


class Outputs(NamedTuple):
    """The network's outputs for a batch, and its priors."""

    deltas: Array  # [b p 4]
    logits: Array  # [b p c+1]
    priors: np.ndarray  # [p 4], a constant of the input's shape
    coefficients: Array | None = None  # [b p q]
    prototypes: Array | None = None  # [b mh mw q]
    semantic: Array | None = None  # [b h w c], training's auxiliary logits


def by_image(outputs: Outputs) -> Any:
    """The `in_axes` that map a function of one image over a batch's outputs."""
    axes = [None if o is None else 0 for o in outputs]
    return Outputs(*axes)._replace(priors=None)  # type: ignore[arg-type]


class Net(linen.Module):
    """Images [b h w 3] -> `Outputs`."""

    num_classes: int
    backbone: Backbone
    fpn: Pyramid
    priors: Priors
    num_prototypes: int  # 0: boxes only
    pixels: str
    dtype: Any

    @linen.compact
    def __call__(self, images, train: bool = False) -> Outputs:
        x = normalize(images, self.pixels, self.dtype)
        features = self.backbone.module(self.dtype, "backbone")(x, train)
        levels = self.fpn.module(self.dtype, "fpn")(
            [features[i - 2] for i in self.backbone.levels]
        )
        shapes = [level.shape[1:3] for level in levels]
        priors = self.priors.grid(shapes, images.shape[1:3])
        deltas, logits, coefficients = self._heads(levels)
        if not self.num_prototypes:
            return Outputs(deltas, logits, priors)
        semantic = None
        if train or self.is_initializing():
            semantic = self._conv(self.num_classes, 1, "semantic_seg_conv")(levels[0])
            semantic = semantic.astype(jnp.float32)
        return Outputs(
            deltas,
            logits,
            priors,
            jnp.tanh(coefficients),
            self._prototypes(levels[0]),
            semantic,
        )

    def _conv(self, features, kernel, name):
        return linen.Conv(
            features,
            (kernel, kernel),
            padding=kernel // 2,
            kernel_init=xavier,
            dtype=self.dtype,
            name=name,
        )

    def _heads(self, levels):
        """The heads on every level, with one set of weights, joined over the levels."""
        prefix = "prediction_layers.0."
        shared = self._conv(self.fpn.features, 3, prefix + "upfeature.0")
        widths = {"bbox_layer": 4, "conf_layer": self.num_classes + 1}
        if self.num_prototypes:
            widths["mask_layer"] = self.num_prototypes
        heads = [
            (width, self._conv(width * self.priors.per_location, 3, prefix + name))
            for name, width in widths.items()
        ]
        hidden = [linen.relu(shared(level)) for level in levels]
        joined = [
            jnp.concatenate(
                [head(x).reshape(x.shape[0], -1, width) for x in hidden], axis=1
            ).astype(jnp.float32)
            for width, head in heads
        ]
        return joined if self.num_prototypes else (*joined, None)

    def _prototypes(self, x):
        for i in (0, 2, 4):
            x = linen.relu(self._conv(self.fpn.features, 3, f"proto_net.{i}")(x))
        double = (2 * x.shape[1], 2 * x.shape[2])
        x = linen.relu(jax.vmap(resize.bilinear, in_axes=(0, None))(x, double))
        x = linen.relu(self._conv(self.fpn.features, 3, "proto_net.8")(x))
        x = linen.relu(self._conv(self.num_prototypes, 1, "proto_net.10")(x))
        return x.astype(jnp.float32)
