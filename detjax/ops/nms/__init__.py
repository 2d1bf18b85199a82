"""Non-maximum suppression: one box an object, of the many that a detector finds.

`suppress` is what detectors call, with the name of a `Method`; the others are its
parts, which see a list of boxes each.
"""

from detjax.ops.nms.fast import fast, fast_of_list
from detjax.ops.nms.fusion import fuse
from detjax.ops.nms.greedy import diou, greedy
from detjax.ops.nms.matrix import matrix
from detjax.ops.nms.soft import soft
from detjax.ops.nms.suppress import METHODS, Kept, Method, best, suppress, suppressed

__all__ = [
    "METHODS",
    "Kept",
    "Method",
    "best",
    "diou",
    "fast",
    "fast_of_list",
    "fuse",
    "greedy",
    "matrix",
    "soft",
    "suppress",
    "suppressed",
]
