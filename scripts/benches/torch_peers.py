"""The bench's torch baselines: the same network, the same weights."""

import torch
import torch.nn.functional as F


def box_iou(a, b):
    """IoU [..., n, m] of boxes [..., n, 4] and [..., m, 4]."""
    low = torch.maximum(a[..., :, None, :2], b[..., None, :, :2])
    high = torch.minimum(a[..., :, None, 2:], b[..., None, :, 2:])
    inter = (high - low).clamp(min=0).prod(-1)
    area_a, area_b = ((x[..., 2:] - x[..., :2]).prod(-1) for x in (a, b))
    return inter / (area_a[..., :, None] + area_b[..., None, :] - inter)


def fast_nms(boxes, scores, threshold=0.5, top_k=200, limit=100):
    """Fast NMS (Bolya et al. 2019): sort all, compare the best `top_k` of a class."""
    ranked, index = scores.sort(1, descending=True)
    ranked, index = ranked[:, :top_k], index[:, :top_k]
    some = boxes[index]
    worst = box_iou(some, some).triu(diagonal=1).max(dim=1).values
    keep = worst <= threshold
    labels = torch.arange(len(scores))[:, None].expand_as(keep)[keep]
    best, order = ranked[keep].sort(descending=True)
    return index[keep][order[:limit]], labels[order[:limit]], best[:limit]


class Yolact:
    """YOLACT on a ResNet in evaluation mode, of the authors' state dict."""

    def __init__(self, state_dict, blocks=(3, 4, 6, 3), device="cpu", dtype=None):
        self.w = {
            k: torch.from_numpy(v).to(device, dtype if v.ndim else None)
            for k, v in state_dict.items()
        }
        self.blocks = blocks

    def conv(self, x, name, stride=1):
        weight, bias = self.w[name + ".weight"], self.w.get(name + ".bias")
        return F.conv2d(x, weight, bias, stride, weight.shape[-1] // 2)

    def norm(self, x, name):
        parts = ("running_mean", "running_var", "weight", "bias")
        mean, variance, scale, bias = (self.w[f"{name}.{p}"] for p in parts)
        return F.batch_norm(x, mean, variance, scale, bias)

    def block(self, x, name, stride):
        y = F.relu(self.norm(self.conv(x, name + ".conv1"), name + ".bn1"))
        y = F.relu(self.norm(self.conv(y, name + ".conv2", stride), name + ".bn2"))
        y = self.norm(self.conv(y, name + ".conv3"), name + ".bn3")
        if name + ".downsample.0.weight" in self.w:
            x = self.conv(x, name + ".downsample.0", stride)
            x = self.norm(x, name + ".downsample.1")
        return F.relu(x + y)

    def __call__(self, x):
        """Deltas, logits, coefficients [b p .] and prototypes [b mh mw q]."""
        x = F.relu(self.norm(self.conv(x, "backbone.conv1", 2), "backbone.bn1"))
        x = F.max_pool2d(x, 3, 2, 1)
        features = []
        for stage, count in enumerate(self.blocks):
            for i in range(count):
                stride = 2 if stage and not i else 1
                x = self.block(x, f"backbone.layers.{stage}.{i}", stride)
            features.append(x)
        levels: list[torch.Tensor] = []
        top = None
        for i, feature in enumerate(features[:0:-1]):
            lateral = self.conv(feature, f"fpn.lat_layers.{i}")
            if top is not None:
                size = lateral.shape[2:]
                lateral = lateral + F.interpolate(
                    top, size, mode="bilinear", align_corners=False
                )
            top = lateral
            levels.insert(0, F.relu(self.conv(top, f"fpn.pred_layers.{i}")))
        for i in range(2):
            levels.append(self.conv(levels[-1], f"fpn.downsample_layers.{i}", 2))
        return *self.heads(levels), self.prototypes(levels[0])

    def heads(self, levels):
        head = "prediction_layers.0."
        found = []
        for level in levels:
            x = F.relu(self.conv(level, head + "upfeature.0"))
            found.append(
                [
                    self.conv(x, head + name)
                    .permute(0, 2, 3, 1)
                    .reshape(len(x), -1, width)
                    for name, width in (
                        ("bbox_layer", 4),
                        ("conf_layer", 81),
                        ("mask_layer", 32),
                    )
                ]
            )
        deltas, logits, masks = (torch.cat(x, 1) for x in zip(*found, strict=True))
        return deltas, logits, torch.tanh(masks)

    def prototypes(self, x):
        for i in (0, 2, 4):
            x = F.relu(self.conv(x, f"proto_net.{i}"))
        x = F.relu(
            F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        )
        x = F.relu(self.conv(x, "proto_net.8"))
        return F.relu(self.conv(x, "proto_net.10")).permute(0, 2, 3, 1)
