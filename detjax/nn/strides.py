"""Strides of a network's layers, and dilation in place of the last ones."""

import itertools
import math
from collections.abc import Sequence

from detjax.errors import UserError

OUTPUT_STRIDES = (32, 16, 8)


def dilated(
    strides: Sequence[int], output_stride: int, *, at_once: bool = False
) -> list[tuple[int, int]]:
    """(stride, dilation) of layers that follow one another, of total stride at most
    `output_stride`.

    A layer that would go beyond keeps the size, and the layers after it are dilated by
    its stride; with `at_once` it is so itself. The first is what torchvision's
    `replace_stride_with_dilation` does and DeepLab (Chen et al. 2017, section 3.1) for
    its networks; the second torchvision's dilated MobileNetV3. Raises UserError for an
    output stride that is not one of 32, 16 and 8.
    """
    if output_stride not in OUTPUT_STRIDES:
        raise UserError(
            f"output_stride={output_stride} is not known; choose one of "
            f"{OUTPUT_STRIDES}"
        )
    total, dilation, plan = 1, 1, []
    for stride in strides:
        if total * stride <= output_stride:
            total *= stride
            plan.append((stride, dilation))
            continue
        grown = dilation * stride
        plan.append((1, grown if at_once else dilation))
        dilation = grown
    return plan


def lasts(strides: Sequence[int], stages: int) -> list[int]:
    """Places of the last layers at strides 4, 8, ... of `stages` stages, by `strides`
    before any is replaced."""
    totals = list(itertools.accumulate(strides, lambda a, b: a * b))
    wanted = [2 ** (stage + 2) for stage in range(stages)]
    return [len(totals) - 1 - totals[::-1].index(each) for each in wanted]


def firsts(strides: Sequence[int], stages: int) -> list[int]:
    """Places of the first layers at strides 4, 8, ... of `stages` stages, as `lasts`
    has the last ones."""
    totals = list(itertools.accumulate(strides, lambda a, b: a * b))
    return [totals.index(2 ** (stage + 2)) for stage in range(stages)]


def rounded(channels: float, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to `channels`, no more than a tenth below it.

    What MobileNets do with scaled channels (the code of Sandler et al. 2018).
    """
    nearest = max(divisor, math.floor(channels / divisor + 0.5) * divisor)
    return nearest + divisor if nearest < 0.9 * channels else nearest
