"""Anchors that fit a data set.

    --config=mine.py | --name=NAME --size=HEIGHT,WIDTH [--model=MODEL]

Prints how well the priors (anchors) of the config's model fit the training objects of
its data set, as the inputs show them, and the settings that fit as flags and as config
text; draws anchors.png into --out. Without a config give --name and --size, and --model
for its settings.
"""

import pathlib
from typing import Any

from absl import flags

from detjax import cli, experiment, fit_anchors, models, tasks
from detjax.data import builder, dataset, sizing
from detjax.errors import UserError

CONFIG = cli.config_flag()
NAME = flags.DEFINE_string("name", None, "A data set, where there is no config.")
DATA_DIR = flags.DEFINE_string("data_dir", "datasets", "The folder of data sets.")
SPLIT = flags.DEFINE_string("split", "train", "The split of --name.")
SIZE = flags.DEFINE_list("size", None, "Height and width of the input: 240,320.")
LETTERBOX = flags.DEFINE_bool("letterbox", False, "Pad pictures to --size.")
MODEL = flags.DEFINE_string("model", None, "The model to fit, with --name.")
MOST = flags.DEFINE_integer("k", 12, "Clusters at most.", lower_bound=1)
SAMPLE = flags.DEFINE_integer(
    "sample", 10_000, "Objects to look at, drawn with --seed.", lower_bound=1
)
SEED = flags.DEFINE_integer("seed", 0, "The seed of the sample.", lower_bound=0)
OUT = flags.DEFINE_string("out", ".", "The folder of anchors.png.")


def main() -> None:
    cli.launch(_anchors, __doc__)


def _anchors(_: list[str]) -> None:
    if bool(CONFIG.value) == bool(NAME.value):
        raise UserError(
            "give --config=FILE.py, or --name=DATASET and --size=HEIGHT,WIDTH"
        )
    given = of_config(CONFIG.value) if CONFIG.value else of_flags()
    print(
        fit_anchors.report(
            **given,
            most=MOST.value,
            objects=SAMPLE.value,
            seed=SEED.value,
            out=pathlib.Path(OUT.value),
        )
    )


def of_config(config: Any) -> dict[str, Any]:
    """The model and the objects of a config."""
    settings = experiment.resolve(config)
    task = tasks.TASKS[models.task_of(settings["model"]["name"])]
    data = dataset.make(task, **settings["data"])
    return {
        "settings": {"num_classes": len(data.info.classes), **settings["model"]},
        "records": data.learnt(),
        "task": task,
        "sizes": data.sizes,
        "min_size": settings["data"].get("min_size", 1.0),
    }


def of_flags() -> dict[str, Any]:
    """The same of --name, --size and --model."""
    if SIZE.value is None:
        raise UserError("give the input's --size=HEIGHT,WIDTH too, or --config=FILE.py")
    try:
        size = [int(side) for side in SIZE.value]
    except ValueError:
        raise UserError(f"--size={','.join(SIZE.value)} is not HEIGHT,WIDTH") from None
    info = builder.info(NAME.value, DATA_DIR.value)
    task = tasks.TASKS[info.task]
    return {
        "settings": {"name": MODEL.value, "num_classes": len(info.classes)}
        if MODEL.value
        else None,
        "records": builder.source(
            NAME.value, DATA_DIR.value, SPLIT.value, task, images=False
        ),
        "task": task,
        "sizes": sizing.input_sizes(size=size, letterbox=LETTERBOX.value),
    }
