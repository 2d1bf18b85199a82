"""The network of a two-stage detector: levels, objectness, and heads on regions.

    b images, p priors over all levels, c classes
    k        regions (RoIs) of one image
    s        bins along a region's side

Names of parameters are torchvision's.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen

from detjax.backbones.pyramid import FPN, Backbone, Pyramid, pyramid
from detjax.models.two_stage.box import Box
from detjax.models.two_stage.detect import Detect
from detjax.models.two_stage.keypoint import Keypoint
from detjax.models.two_stage.mask import Mask
from detjax.models.two_stage.mask_iou import MaskIoU
from detjax.models.two_stage.roi import RoI
from detjax.models.two_stage.rpn import RPN, Network, Priors
from detjax.nn.images import normalize
from detjax.types import Array

# The parameters of each stage, by their names.
GROUPS = {
    "backbone": r"^backbone\.body\.",
    "fpn": r"^backbone\.fpn\.",
    "rpn": r"^rpn\.",
    "box": r"^roi_heads\.box_(head|predictor)\.",
    "mask": r"^roi_heads\.mask_(head|predictor)\.",
    "mask_iou": r"^roi_heads\.mask_iou\.",
    "keypoint": r"^roi_heads\.keypoint_(head|predictor)\.",
}


class Stages(NamedTuple):
    """The settings of a detector by stage; None is a stage that it does not have."""

    backbone: Backbone
    fpn: FPN | None
    rpn: RPN | None
    roi: RoI
    box: Box
    mask: Mask | None
    mask_iou: MaskIoU | None
    keypoint: Keypoint | None
    detect: Detect

    def groups(self) -> dict[str, str]:
        """`GROUPS` of the stages that there are."""
        return {k: v for k, v in GROUPS.items() if getattr(self, k) is not None}


class Outputs(NamedTuple):
    """What the network computes of images alone, without regions."""

    levels: tuple[Array, ...]  # [b h w .], those that regions are read from
    priors: Priors | None = None  # constants of the input's shape
    logits: Array | None = None  # [b p]: objectness
    deltas: Array | None = None  # [b p 4]


class RoIHeads(linen.Module):
    """torchvision's `roi_heads`: a head and a predictor for each thing to predict."""

    box_head: linen.Module
    box_predictor: linen.Module
    mask_head: linen.Module | None = None
    mask_predictor: linen.Module | None = None
    keypoint_head: linen.Module | None = None
    keypoint_predictor: linen.Module | None = None
    mask_iou: linen.Module | None = None

    def boxes(self, regions, train, real=None):
        x = self.box_head(regions, train, real)
        return self.box_predictor(x)

    def masks(self, regions, train, real=None):
        return self.mask_predictor(self.mask_head(regions, train, real))

    def keypoints(self, regions):
        return self.keypoint_predictor(self.keypoint_head(regions))


class Net(linen.Module):
    """Images [b h w 3] -> `Outputs`; its other methods apply a head to regions."""

    num_classes: int
    stages: Stages
    backbone: Pyramid
    rpn: Network | None
    roi_heads: RoIHeads
    pixels: str
    dtype: Any

    def __call__(self, images, train: bool = False) -> Outputs:
        x = normalize(images, self.pixels, self.dtype)
        levels = self.backbone(x, train)
        outputs = Outputs(levels)
        if self.rpn is not None:
            # A last level for proposals only: every second cell of the one before.
            pooled = [every_second(levels[-1])] if self.stages.fpn is not None else []
            maps = [*levels, *pooled]
            shapes = [x.shape[1:3] for x in maps]
            priors = self.stages.rpn.priors(shapes, images.shape[1:3])
            outputs = Outputs(levels, priors, *self.rpn(maps))
        if self.is_initializing():
            self._touch(levels[0])
        return outputs

    def _touch(self, level):
        """Runs the heads once, so that their parameters come into being."""

        def region(stage):
            bins = stage.bins
            return jnp.zeros((1, 1, bins, bins, level.shape[-1]), self.dtype)

        stages = self.stages
        self.boxes(region(stages.box))
        if stages.mask is not None:
            masks = self.masks(region(stages.mask))
            if stages.mask_iou is not None:
                self.mask_iou(region(stages.mask), masks[..., 0])
        if stages.keypoint is not None:
            self.keypoints(region(stages.keypoint))

    def boxes(self, regions, train: bool = False, real=None):
        """Regions [b k s s .] -> logits [b k c+1] and deltas [b k c+1 4]."""
        return self._by_region(self.roi_heads.boxes, regions, train, real)

    def masks(self, regions, train: bool = False, real=None):
        """Regions [b k s s .] -> mask logits [b k r r c+1]."""
        return self._by_region(self.roi_heads.masks, regions, train, real)

    def keypoints(self, regions):
        """Regions [b k s s .] -> heatmaps [b k r r keypoints]."""
        return unflat(self.roi_heads.keypoints(flat(regions)), regions)

    def mask_iou(self, regions, probs):
        """Regions and their masks [b k r r] in 0..1 -> IoU [b k c] by class."""
        return unflat(self.roi_heads.mask_iou(flat(regions), flat(probs)), regions)

    def _by_region(self, head, regions, train, real):
        real = None if real is None else flat(real)
        found = head(flat(regions), train, real)
        return jax.tree.map(lambda x: unflat(x, regions), found)


def make(stages: Stages, num_classes: int, pixels: str, dtype: Any) -> Net:
    """The network of the stages."""
    backbone, box = stages.backbone, stages.box
    heads: dict[str, Any] = box.modules(num_classes, backbone, dtype)
    if stages.mask is not None:
        heads |= stages.mask.modules(num_classes, backbone.others_eps, dtype)
    if stages.mask_iou is not None:
        heads |= stages.mask_iou.modules(num_classes, stages.mask, box, dtype)
    if stages.keypoint is not None:
        heads |= stages.keypoint.modules(dtype)
    return Net(
        num_classes=num_classes,
        stages=stages,
        backbone=pyramid(backbone, stages.fpn, dtype),
        rpn=None if stages.rpn is None else stages.rpn.module(dtype),
        roi_heads=RoIHeads(**heads),
        pixels=pixels,
        dtype=dtype,
    )


def every_second(x: Array) -> Array:
    """Every second cell of [b h w c], the first included.

    By halves and not by strides: XLA cannot split the gradient of a strided slice
    among devices where rows are few.
    """
    b, h, w, c = x.shape
    x = jnp.pad(x, [(0, 0), (0, h % 2), (0, w % 2), (0, 0)])
    return x.reshape(b, -(-h // 2), 2, -(-w // 2), 2, c)[:, :, 0, :, 0]


def flat(x: Array) -> Array:
    """[b k ...] -> [b*k ...]."""
    return x.reshape(-1, *x.shape[2:])


def unflat(x: Array, like: Array) -> Array:
    """[b*k ...] -> [b k ...], b and k being those of `like`."""
    return x.reshape(*like.shape[:2], *x.shape[1:])
