"""torchvision's detectors and operators, with weights and inputs of ours."""

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torchvision
from torchvision.models import detection

# torchvision's names of our models.
DETECTORS = {
    "faster_rcnn_r50_fpn": detection.fasterrcnn_resnet50_fpn,
    "mask_rcnn_r50_fpn": detection.maskrcnn_resnet50_fpn,
    "retinanet_resnet50_fpn": detection.retinanet_resnet50_fpn,
    "ssd300_vgg16": detection.ssd300_vgg16,
}
# Those without a class for background.
FOREGROUND = ("retinanet_resnet50_fpn",)


def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def waits(function: Callable[[], Any]) -> Callable[[], Any]:
    """`function`, and a wait for what it has begun on a GPU."""

    def call():
        found = function()
        if device() == "cuda":
            torch.cuda.synchronize()
        return found

    return call


def nms(boxes: np.ndarray, scores: np.ndarray) -> Callable[[], torch.Tensor]:
    b, s = (torch.from_numpy(x).to(device()) for x in (boxes, scores))
    return waits(lambda: torchvision.ops.nms(b, s, 0.5))


def batched_nms(
    boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, threshold: float
) -> Callable[[], torch.Tensor]:
    b, s, c = (torch.from_numpy(x).to(device()) for x in (boxes, scores, labels))
    return waits(lambda: torchvision.ops.batched_nms(b, s, c, threshold)[:100])


def roi_align(
    features: np.ndarray, boxes: np.ndarray, backward: bool
) -> Callable[[], torch.Tensor]:
    """7 x 7 bins of 2 x 2 samples of a map [h w c] of stride 4."""
    x = torch.from_numpy(features).permute(2, 0, 1)[None].contiguous().to(device())
    b = torch.from_numpy(boxes).to(device())

    def forward():
        return torchvision.ops.roi_align(x, [b], 7, 0.25, 2)

    def gradient():
        x.requires_grad_()
        return torch.autograd.grad((forward() ** 2).sum(), x)[0]

    return waits(gradient if backward else forward)


def deform_conv(
    x: np.ndarray, offsets: np.ndarray, weights: np.ndarray, kernel: np.ndarray
) -> Callable[[], torch.Tensor]:
    """A modulated deformable convolution 3 x 3 of maps [b h w c]."""
    kinds = (x, offsets, weights)
    x_, o, m = (torch.from_numpy(v).permute(0, 3, 1, 2).contiguous() for v in kinds)
    k = torch.from_numpy(kernel).permute(3, 2, 0, 1).contiguous()
    x_, o, m, k = (v.to(device()) for v in (x_, o, m, k))
    return waits(lambda: torchvision.ops.deform_conv2d(x_, o, k, padding=1, mask=m))


def detector(name: str, held: dict[str, np.ndarray], classes: int) -> torch.nn.Module:
    """The detector of our `name` that holds the weights of `convert.export`."""
    model = DETECTORS[name](
        weights=None,
        weights_backbone=None,
        num_classes=classes + (name not in FOREGROUND),
    )
    tensors = {k: torch.from_numpy(v) for k, v in held.items()}
    wrong = model.load_state_dict(tensors, strict=False)
    missing = [k for k in wrong.missing_keys if "num_batches_tracked" not in k]
    assert not missing, missing
    assert not wrong.unexpected_keys, wrong.unexpected_keys
    return model.to(device())


def predict(
    model: torch.nn.Module, images: np.ndarray, amp: bool = False
) -> Callable[[], list[dict[str, torch.Tensor]]]:
    """Images [b h w 3] uint8 to detections; masks stay on their boxes, as ours do."""
    model.eval()
    tensors = _tensors(images)

    def call():
        with torch.inference_mode(), _amp(amp):
            held, _ = model.transform(tensors)
            features = model.backbone(held.tensors)
            proposals, _ = model.rpn(held, features)
            return model.roi_heads(features, proposals, held.image_sizes)[0]

    return waits(call)


def whole(
    model: torch.nn.Module, images: np.ndarray, amp: bool = False
) -> Callable[[], list[dict[str, torch.Tensor]]]:
    """Images [b h w 3] uint8 to detections, by the model's own call."""
    model.eval()
    tensors = _tensors(images)

    def call():
        with torch.inference_mode(), _amp(amp):
            return model(tensors)

    return waits(call)


def train(
    model: torch.nn.Module,
    images: np.ndarray,
    boxes: np.ndarray,
    masks: bool,
    amp: bool = False,
) -> Callable[[], float]:
    """A step of SGD on images with boxes [b n 4]; masks are whole boxes."""
    model.train()
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad], 1e-4, momentum=0.9
    )
    tensors, truth = _tensors(images), []
    for rows in boxes:
        one = {
            "boxes": torch.from_numpy(rows).to(device()),
            "labels": torch.ones(len(rows), dtype=torch.int64, device=device()),
        }
        if masks:
            drawn = torch.zeros((len(rows), *images.shape[1:3]), dtype=torch.uint8)
            for mask, (x1, y1, x2, y2) in zip(drawn, rows.astype(int), strict=True):
                mask[y1:y2, x1:x2] = 1
            one["masks"] = drawn.to(device())
        truth.append(one)

    def call():
        with _amp(amp):
            loss = sum(model(tensors, truth).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return waits(call)


def classifier(name: str, held: dict[str, np.ndarray]) -> torch.nn.Module:
    """The classifier called `name` that holds the weights of `convert.export`."""
    kwargs = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model = torchvision.models.get_model(name, weights=None, **kwargs)
    tensors = {k: torch.from_numpy(v) for k, v in held.items()}
    wrong = model.load_state_dict(tensors, strict=False)
    missing = [k for k in wrong.missing_keys if "num_batches_tracked" not in k]
    assert not missing, missing
    assert not wrong.unexpected_keys, wrong.unexpected_keys
    return model.to(device())


def logits(model: torch.nn.Module, images: np.ndarray) -> Callable[[], torch.Tensor]:
    """Normalised images [b h w 3] to logits."""
    model.eval()
    x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(device())

    def call():
        with torch.inference_mode():
            return model(x)

    return waits(call)


def segmenter(
    name: str, held: dict[str, np.ndarray], inner: bool = False
) -> torch.nn.Module:
    """The network for pixels called `name` that holds weights of `convert.export`.

    Its inner head, which is of use in training alone, stays if `inner`.
    """
    kwargs = {"weights": None, "weights_backbone": None, "aux_loss": True}
    model = torchvision.models.get_model(name, **kwargs)
    tensors = {k: torch.from_numpy(v) for k, v in held.items()}
    wrong = model.load_state_dict(tensors, strict=False)
    missing = [k for k in wrong.missing_keys if "num_batches_tracked" not in k]
    assert not missing, missing
    assert not wrong.unexpected_keys, wrong.unexpected_keys
    if not inner:
        model.aux_classifier = None
    return model.to(device())


def pixels(model: torch.nn.Module, images: np.ndarray) -> Callable[[], torch.Tensor]:
    """Normalised images [b h w 3] to logits at full size."""
    model.eval()
    x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(device())

    def call():
        with torch.inference_mode():
            return model(x)["out"]

    return waits(call)


def classify_train(
    model: torch.nn.Module, images: np.ndarray, labels: np.ndarray
) -> Callable[[], float]:
    """A step of SGD on images [b h w 3] uint8, with AMP and channels last."""
    model = model.train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), 1e-4, momentum=0.9)
    x = torch.from_numpy(images).to(device()).permute(0, 3, 1, 2).float() / 255
    x = x.contiguous(memory_format=torch.channels_last)
    y = torch.from_numpy(labels).to(device())

    def call():
        with _amp(True):
            loss = torch.nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return waits(call)


def segment_train(
    model: torch.nn.Module, images: np.ndarray, labels: np.ndarray
) -> Callable[[], float]:
    """A step of SGD on images [b h w 3] uint8 and labels [b h w], both heads."""
    model = model.train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), 1e-4, momentum=0.9)
    x = torch.from_numpy(images).to(device()).permute(0, 3, 1, 2).float() / 255
    x = x.contiguous(memory_format=torch.channels_last)
    y = torch.from_numpy(labels).to(device())

    def call():
        with _amp(True):
            found = model(x)
            entropy = torch.nn.functional.cross_entropy
            loss = entropy(found["out"], y) + 0.5 * entropy(found["aux"], y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return waits(call)


def _tensors(images: np.ndarray) -> list[torch.Tensor]:
    return [
        (torch.from_numpy(x).permute(2, 0, 1).float() / 255).to(device())
        for x in images
    ]


def _amp(wanted: bool) -> contextlib.AbstractContextManager:
    if not wanted:
        return contextlib.nullcontext()
    return torch.autocast(device(), dtype=torch.bfloat16)
