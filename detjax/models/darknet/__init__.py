"""Darknet's networks: YOLO's detectors, and classifiers, from their cfg files.

A cfg describes a network section by section; `net` builds its layers, and what it ends
with tells what it learns: [yolo], [region] and [detection] find objects, [softmax] and
[cost] tell classes apart.
"""

from detjax.models.darknet.classifier import darknet_classifier
from detjax.models.darknet.detect import Detect
from detjax.models.darknet.ends import standing
from detjax.models.darknet.model import Priors, darknet, detector
from detjax.models.darknet.yolo_models import NETWORKS, yolo

__all__ = [
    "NETWORKS",
    "Detect",
    "Priors",
    "darknet",
    "darknet_classifier",
    "detector",
    "standing",
    "yolo",
]
