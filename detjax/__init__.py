"""Object detection and segmentation in JAX: models as three pure functions."""

__version__ = "0.1.0"
