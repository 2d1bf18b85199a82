"""ResNet (He et al., CVPR 2016), ResNeXt (Xie et al., 2017), Wide ResNet (2016).

torchvision's form: the stride of a bottleneck sits on its 3x3 convolution, every
padding is explicit, and modules carry torchvision's state-dict names.

    images   [b h w 3]
    c2..c5   [b h/4 w/4 .] .. [b h/32 w/32 .]
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen

from detjax.errors import UserError
from detjax.nn.conv import Conv
from detjax.nn.deform import DeformableConv
from detjax.nn.norm import norm
from detjax.nn.remat import rematerialised
from detjax.nn.strides import dilated


class Spec(NamedTuple):
    """What tells the members of the family apart."""

    stages: tuple[int, ...]
    bottleneck: bool = True
    groups: int = 1
    width_per_group: int = 64


SPECS = {
    # Not in the paper: one block a stage, for small images and tests.
    "resnet10": Spec((1, 1, 1, 1), bottleneck=False),
    "resnet18": Spec((2, 2, 2, 2), bottleneck=False),
    "resnet34": Spec((3, 4, 6, 3), bottleneck=False),
    "resnet50": Spec((3, 4, 6, 3)),
    "resnet101": Spec((3, 4, 23, 3)),
    "resnet152": Spec((3, 8, 36, 3)),
    "resnext50_32x4d": Spec((3, 4, 6, 3), groups=32, width_per_group=4),
    "resnext101_32x8d": Spec((3, 4, 23, 3), groups=32, width_per_group=8),
    "wide_resnet50_2": Spec((3, 4, 6, 3), width_per_group=128),
}


class Block(linen.Module):
    """One residual block: two 3x3 convolutions, or 1x1, 3x3, 1x1 as a bottleneck."""

    features: int  # before the bottleneck's expansion by 4
    stride: int
    spec: Spec
    norm: str
    dtype: Any
    deformable: bool = False  # its 3x3 convolution, of a bottleneck
    norm_eps: float = 1e-5
    dilations: tuple[int, int] = (1, 1)  # of 3x3 convolutions: the first, a second

    @linen.compact
    def __call__(self, x, train: bool):
        def conv_norm(
            x, i, channels, kernel, stride=1, groups=1, relu=True, again=False
        ):
            if self.deformable and kernel == 3:
                layer: Any = DeformableConv(
                    channels, 3, stride, self.dtype, name=f"conv{i}"
                )
            else:
                layer = Conv(
                    channels,
                    kernel,
                    stride,
                    groups=groups,
                    dilation=1 if kernel == 1 else self.dilations[again],
                    dtype=self.dtype,
                    name=f"conv{i}",
                )
            x = layer(x)
            x = self._norm(f"bn{i}", channels, train)(x)
            return linen.relu(x) if relu else x

        if self.spec.bottleneck:
            width = self.features * self.spec.width_per_group // 64 * self.spec.groups
            out = self.features * 4
            y = conv_norm(x, 1, width, 1)
            y = conv_norm(y, 2, width, 3, self.stride, self.spec.groups)
            y = conv_norm(y, 3, out, 1, relu=False)
        else:
            out = self.features
            y = conv_norm(x, 1, out, 3, self.stride)
            y = conv_norm(y, 2, out, 3, relu=False, again=True)
        if self.stride != 1 or x.shape[-1] != out:
            x = Conv(out, 1, self.stride, dtype=self.dtype, name="downsample.0")(x)
            x = self._norm("downsample.1", out, train)(x)
        return linen.relu(x + y)

    def _norm(self, name, channels, train):
        return norm(
            self.norm,
            name=name,
            channels=channels,
            train=train,
            epsilon=self.norm_eps,
            dtype=self.dtype,
        )


class ResNet(linen.Module):
    """Features (c2, c3, c4, c5), or class logits [b num_classes] where that is set.

    Fewer than four `stages` give fewer features, for nets that need no coarser ones.
    With an `output_stride` of 16 or 8 dilation takes the place of the last strides, as
    torchvision's `replace_stride_with_dilation` does. With `deform_every` n, the first
    and every n-th block after it of the last three stages are deformable, as in
    YOLACT++. With `remat` the backward pass computes what is inside each block again
    instead of keeping it.

    Networks for pixels change more: with a `deep_stem` three 3x3 convolutions take the
    place of the first one (Zhao et al. 2017); with `dilate_at_once` a block that lost
    its stride is dilated itself, and not only those after it; a `multi_grid` multiplies
    the dilation of each block of the last stage (Chen et al. 2017, section 3.2).
    """

    head = r"fc\."

    spec: Spec
    width: int = 64
    stages: int = 4
    norm: str = "batch"
    norm_eps: float = 1e-5
    num_classes: int | None = None
    output_stride: int = 32
    deform_every: int = 0
    deep_stem: bool = False
    dilate_at_once: bool = False
    multi_grid: tuple[int, ...] = ()
    remat: bool = False
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, images, train: bool = False):
        def stem(net, x):
            for i, (channels, kernel, stride) in enumerate(net._stem(), start=1):
                layer = Conv(channels, kernel, stride, dtype=net.dtype, name=f"conv{i}")
                x = norm(
                    net.norm,
                    name=f"bn{i}",
                    channels=channels,
                    train=train,
                    epsilon=net.norm_eps,
                    dtype=net.dtype,
                )(layer(x))
                x = linen.relu(x)
            return linen.max_pool(x, (3, 3), (2, 2), [(1, 1), (1, 1)])

        x = (linen.remat(stem) if self.remat else stem)(self, images)
        features = []
        plan = self._plan()
        for stage, depth in enumerate(self.spec.stages[: self.stages]):
            for i in range(depth):
                stride, dilations = next(plan)
                x = rematerialised(Block, self.remat)(
                    features=self.width * 2**stage,
                    stride=stride,
                    dilations=dilations,
                    spec=self.spec,
                    norm=self.norm,
                    dtype=self.dtype,
                    deformable=stage > 0
                    and self.deform_every > 0
                    and i % self.deform_every == 0,
                    norm_eps=self.norm_eps,
                    name=f"layer{stage + 1}.{i}",
                )(x, train)
            features.append(x)
        if self.num_classes is None:
            return tuple(features)
        pooled = x.mean(axis=(1, 2)).astype(jnp.float32)
        return linen.Dense(self.num_classes, name="fc")(pooled)

    def _stem(self):
        """Channels, kernel and stride of the first convolutions."""
        if not self.deep_stem:
            return [(self.width, 7, 2)]
        return [(self.width, 3, 2), (self.width, 3, 1), (2 * self.width, 3, 1)]

    def _plan(self):
        """Stride and dilations of each block.

        A second 3x3 convolution comes after the stride that dilation stands for.
        """
        if self.deform_every and self.output_stride != 32:
            raise UserError(
                f"output_stride={self.output_stride} is not for deformable "
                "convolutions; leave it at 32 or set deform_every=0"
            )
        strides = [
            2 if stage > 0 and i == 0 else 1
            for stage, depth in enumerate(self.spec.stages)
            for i in range(depth)
        ]
        last = self.spec.stages[-1]
        if self.multi_grid and len(self.multi_grid) != last:
            raise UserError(
                f"multi_grid={self.multi_grid} has {len(self.multi_grid)} numbers; the "
                f"last stage has {last} blocks, and a number for each"
            )
        grid = [1] * (len(strides) - last) + [*(self.multi_grid or [1] * last)]
        # The stem has a stride of 4.
        once = self.dilate_at_once
        plan = dilated([4, *strides], self.output_stride, at_once=once)[1:]
        for stride, (kept, dilation), by in zip(strides, plan, grid, strict=True):
            again = dilation if once else dilation * stride // kept
            yield kept, (dilation * by, again * by)


class Stage(linen.Module):
    """The last stage on its own, [n h w c] -> [n h/2 w/2 .]: a head on single regions.

    He et al. 2016, section 4.4: what the first detectors on ResNets do with it.
    """

    spec: Spec
    width: int = 64
    norm: str = "batch"
    norm_eps: float = 1e-5
    remat: bool = False
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, x, train: bool = False):
        for i in range(self.spec.stages[3]):
            x = rematerialised(Block, self.remat)(
                features=self.width * 8,
                stride=2 if i == 0 else 1,
                spec=self.spec,
                norm=self.norm,
                dtype=self.dtype,
                norm_eps=self.norm_eps,
                name=f"layer4.{i}",
            )(x, train)
        return x


def resnet(name: str, /, **kwargs: Any) -> ResNet:
    """The member called `name` of `SPECS`; keywords as in `ResNet`.

    Raises UserError for an unknown name.
    """
    if name not in SPECS:
        raise UserError(f"no ResNet is called {name!r}; choose one of {list(SPECS)}")
    return ResNet(spec=SPECS[name], **kwargs)
