"""CenterNet: objects as points (Zhou, Wang and Kraehenbuehl 2019).

    b, c     images, classes
    mh, mw   height and width of the maps, in cells
    n        objects of an image, padded
    k        peaks of the map of centres

A peak of a class's map is an object; everything else of it is read from other maps at
the same cell: its box, its keypoints, its angle, its whole extent. Each of these is a
part in a file of its own, which says what its maps are, what they learn, and what is
read from them.
"""

from detjax.models.centernet.amodal import Amodal
from detjax.models.centernet.box import Box
from detjax.models.centernet.detect import Detect
from detjax.models.centernet.dla_up import DLAUp
from detjax.models.centernet.match import Match
from detjax.models.centernet.model import (
    DLA,
    HOURGLASS,
    ORIGINALS,
    centernet,
    centernet_dla,
    centernet_hourglass,
)
from detjax.models.centernet.net import Head
from detjax.models.centernet.oriented import Oriented
from detjax.models.centernet.pose import Pose
from detjax.models.centernet.up import Deconv

__all__ = [
    "DLA",
    "HOURGLASS",
    "ORIGINALS",
    "Amodal",
    "Box",
    "DLAUp",
    "Deconv",
    "Detect",
    "Head",
    "Match",
    "Oriented",
    "Pose",
    "centernet",
    "centernet_dla",
    "centernet_hourglass",
]
