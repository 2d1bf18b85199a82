"""Consistency checks of a detector's settings, and of batches."""

from typing import Any, get_args, get_type_hints

from detjax.backbones import resnet
from detjax.errors import UserError
from detjax.models.two_stage.box import Box
from detjax.models.two_stage.net import Stages
from detjax.models.two_stage.roi import RoI
from detjax.types import Batch


def check(stages: Stages) -> None:
    """Raises UserError if the stages are inconsistent."""
    for path, kind, value in (
        ("roi.pooling", RoI, stages.roi.pooling),
        ("box.head", Box, stages.box.head),
    ):
        _check_choice(path, kind, value)
    levels, rpn = stages.backbone.levels, stages.rpn
    if list(levels) != list(range(min(levels), max(levels) + 1)):
        raise UserError(
            f"backbone.levels={levels} must follow one another, the finest first"
        )
    maps = len(levels) + (stages.fpn is not None)
    if rpn and (len(rpn.sizes) != maps or len({len(s) for s in rpn.sizes}) != 1):
        raise UserError(
            f"rpn.sizes={rpn.sizes} must hold one tuple of equal length for each of "
            f"the {maps} levels that boxes are proposed on"
        )
    if len(levels) > 1 and (stages.roi.pooling == "max" or stages.fpn is None):
        raise UserError(
            f"backbone.levels={levels} need fpn=True and roi.pooling='align'; give one "
            "level else"
        )
    if stages.mask_iou is not None and stages.mask is None:
        raise UserError("mask_iou=True scores masks; set mask=True")
    if stages.box.head == "last_stage":
        _check_last_stage(stages)


def _check_choice(path: str, kind: type, value: Any) -> None:
    choices = get_args(get_type_hints(kind)[path.split(".")[1]])
    if value not in choices:
        raise UserError(f"{path}={value!r} is not known; choose one of {choices}")


def _check_last_stage(stages: Stages) -> None:
    backbone = stages.backbone
    if backbone.name not in resnet.SPECS or max(backbone.levels) > 4:
        raise UserError(
            "box.head='last_stage' takes the last stage of a ResNet, which must not be "
            f"among the features: backbone.name={backbone.name!r}, "
            f"backbone.levels={backbone.levels}"
        )
    if backbone.norm == "batch":
        raise UserError(
            "box.head='last_stage' would take batch statistics of padding too; "
            "set backbone.norm='frozen' or backbone.norm='group'"
        )


def check_batch(stages: Stages, batch: Batch) -> None:
    """Raises UserError if the batch lacks required targets."""
    objects, keypoint = batch.target, stages.keypoint
    if stages.mask and objects.masks is None and objects.box_masks is None:
        raise UserError(
            "this detector learns masks but the batch has none; "
            "set model.name=faster_rcnn to learn boxes only"
        )
    given = objects.keypoints
    if keypoint and (given is None or given.shape[2] != keypoint.count):
        held = "none" if given is None else f"{given.shape[2]} an object"
        raise UserError(
            f"this detector learns {keypoint.count} keypoints but the batch has "
            f"{held}; set model.keypoint.count to their number, or choose another model"
        )
