"""R-CNN: regions with CNN features (Girshick et al., CVPR 2014).

External proposals are cropped, warped to a square, and classified one by one. A network
is fine-tuned to tell the classes and background apart; then `solve` trains one linear
SVM a class on its features, and a box regression a class by ridge regression.
"""

from detjax.models.rcnn.detect import Detect
from detjax.models.rcnn.detector import rcnn
from detjax.models.rcnn.net import Backbone
from detjax.models.rcnn.ridge import Ridge
from detjax.models.rcnn.sample import Sample
from detjax.models.rcnn.svm import SVM
from detjax.models.rcnn.warp import Warp

# Settings of earlier versions, which had no stages, and where they are now.
EARLIER: dict[str, str] = {
    "backbone_width": "backbone.width",
    "norm": "backbone.norm",
    "crop": "warp.size",
    "padding": "warp.padding",
    "chunk": "warp.chunk",
    "positive": "sample.positive",
    "negative": "sample.negative",
    "num_positives": "sample.num_positives",
    "num_background": "sample.num_background",
    "svm_negative": "svm.negative",
    "svm_cost": "svm.cost",
    "ridge_near": "ridge.near",
    "ridge_penalty": "ridge.penalty",
    "score_threshold": "detect.score_threshold",
    "nms_threshold": "detect.nms_threshold",
    "top_k": "detect.top_k",
    "max_detections": "detect.max_detections",
}

__all__ = [
    "EARLIER",
    "SVM",
    "Backbone",
    "Detect",
    "Ridge",
    "Sample",
    "Warp",
    "rcnn",
]
