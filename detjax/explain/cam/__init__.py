"""Class activation maps: where in a picture a layer holds what an answer rests on.

    cam                      of classifiers that end in a mean and a linear layer
    grad-cam, grad-cam++, xgrad-cam, hires-cam, layer-cam     by gradients
    score-cam                by passes with the picture masked
    eigen-cam                by the layer alone

Zhou et al. 2016; each file names the papers of its own.
"""

from detjax.explain.cam import classic, eigen, gradients, score
from detjax.explain.cam.default import usual
from detjax.explain.cam.scaled import ACTIVATIONS, After, Maps, joined, scaled

__all__ = [
    "ACTIVATIONS",
    "METHODS",
    "After",
    "Maps",
    "classic",
    "eigen",
    "gradients",
    "joined",
    "scaled",
    "score",
    "usual",
]

METHODS = (*gradients.METHODS, "score-cam", "eigen-cam", "cam")
