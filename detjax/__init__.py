"""Object detection, segmentation and classification in JAX and Flax.

Where to begin, from Python:

    from detjax import config_files, models, predict, run

    config = config_files.load("quickstart")     # or the path of a config of your own
    config.train.steps = 300
    metrics = run.train(config, "runs/quickstart")

    trained = predict.load("runs/quickstart")    # or a folder of imported weights
    found = trained(predict.read_image("photo.jpg"), min_score=0.3)
    drawn = trained.draw("photo.jpg", found)     # an array [h w 3]

    model = models.make("mask_rcnn", num_classes=3)    # init, loss, predict: pure

and from a shell, `detjax --help`. `detjax.types` has the structures that all share and
the legend of shapes, `detjax.settings` what a setting may be, `detjax.reference`
every setting of a config.
"""

import importlib
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """A module of the package, loaded at its first use: `detjax.models`."""
    if not name.startswith("_"):
        try:
            return importlib.import_module(f"detjax.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"detjax.{name}":
                raise
    raise AttributeError(f"module 'detjax' has no attribute {name!r}")
