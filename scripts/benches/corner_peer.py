"""The bench's CornerNet in torch: the authors' state dict, their cummax form."""

import torch
import torch.nn.functional as F

# Axis of NCHW, and whether a sweep begins at its far end.
SWEEPS = {"tl": ((2, True), (3, True)), "br": ((2, False), (3, False))}


def swept(x, axis, reverse):
    """Corner pooling as a cumulative maximum."""
    if not reverse:
        return x.cummax(axis).values
    return x.flip(axis).cummax(axis).values.flip(axis)


class CornerNet:
    """CornerNet in evaluation mode; the last hourglass alone has heads."""

    def __init__(self, state_dict, stacks=2):
        self.w = {k: torch.from_numpy(v) for k, v in state_dict.items()}
        self.stacks = stacks

    def conv(self, x, name, stride=1):
        weight, bias = self.w[name + ".weight"], self.w.get(name + ".bias")
        return F.conv2d(x, weight, bias, stride, weight.shape[-1] // 2)

    def norm(self, x, name):
        parts = ("running_mean", "running_var", "weight", "bias")
        mean, variance, scale, bias = (self.w[f"{name}.{p}"] for p in parts)
        return F.batch_norm(x, mean, variance, scale, bias)

    def linear(self, x, conv, norm, stride=1):
        return self.norm(self.conv(x, conv, stride), norm)

    def convolution(self, x, name, stride=1):
        return F.relu(self.linear(x, f"{name}.conv", f"{name}.bn", stride))

    def residual(self, x, name, stride=1):
        y = F.relu(self.linear(x, f"{name}.conv1", f"{name}.bn1", stride))
        y = self.linear(y, f"{name}.conv2", f"{name}.bn2")
        if f"{name}.skip.0.weight" in self.w:
            x = self.linear(x, f"{name}.skip.0", f"{name}.skip.1", stride)
        return F.relu(x + y)

    def blocks(self, x, name, stride=1):
        i = 0
        while f"{name}.{i}.conv1.weight" in self.w:
            x = self.residual(x, f"{name}.{i}", 1 if i else stride)
            i += 1
        return x

    def hourglass(self, x, name):
        up = self.blocks(x, f"{name}.up1")
        low = self.blocks(x, f"{name}.low1", 2)
        if f"{name}.low2.0.conv1.weight" in self.w:
            low = self.blocks(low, f"{name}.low2")
        else:
            low = self.hourglass(low, f"{name}.low2")
        low = self.blocks(low, f"{name}.low3")
        return up + F.interpolate(low, scale_factor=2)

    def corners(self, x, kind, i):
        name = f"{kind}_cnvs.{i}"
        first, second = (
            swept(self.convolution(x, f"{name}.p{j}_conv1"), *sweep)
            for j, sweep in enumerate(SWEEPS[kind], start=1)
        )
        y = self.linear(first + second, f"{name}.p_conv1", f"{name}.p_bn1")
        y = F.relu(y + self.linear(x, f"{name}.conv1", f"{name}.bn1"))
        y = self.convolution(y, f"{name}.conv2")
        return [
            self.conv(F.relu(self.conv(y, f"{head}.0.conv")), f"{head}.1")
            for head in (f"{kind}_{part}.{i}" for part in ("heats", "tags", "regrs"))
        ]

    def __call__(self, x):
        """Heat, tags and offsets of both corners, [b . mh mw] each."""
        x = self.residual(self.convolution(x, "pre.0", 2), "pre.1", 2)
        for i in range(self.stacks):
            y = self.convolution(self.hourglass(x, f"kps.{i}"), f"cnvs.{i}")
            if i < self.stacks - 1:
                x = self.linear(x, f"inters_.{i}.0", f"inters_.{i}.1")
                y = self.linear(y, f"cnvs_.{i}.0", f"cnvs_.{i}.1")
                x = self.residual(F.relu(x + y), f"inters.{i}")
        return [map_ for kind in SWEEPS for map_ in self.corners(y, kind, i)]
