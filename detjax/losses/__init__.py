"""Losses: unreduced ones, masked reductions, and those of whole maps.

All arithmetic is float32 whatever the logits' type, so that a bfloat16 network trains
on the same losses as a float32 one. Every family reduces in its own file.
"""

from detjax.losses.depth import berhu, scale_invariant_log
from detjax.losses.elementwise import (
    focal,
    gaussian_focal,
    masked_mean,
    sigmoid_cross_entropy,
    smooth_l1,
    softmax_cross_entropy,
    softmax_focal,
    weighted_mean,
)
from detjax.losses.regions import dice, hardest, lovasz_softmax

__all__ = [
    "berhu",
    "dice",
    "focal",
    "gaussian_focal",
    "hardest",
    "lovasz_softmax",
    "masked_mean",
    "scale_invariant_log",
    "sigmoid_cross_entropy",
    "smooth_l1",
    "softmax_cross_entropy",
    "softmax_focal",
    "weighted_mean",
]
