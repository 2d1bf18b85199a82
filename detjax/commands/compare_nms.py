"""AP of a trained model by every method of suppression, in one pass.

    --workdir=DIR [--nms=greedy,soft] [--split=test] [--best] [--config.KEY=VALUE ...]

Prints a table, and writes nms.json and nms.png to the run's folder, or to --out. Lower
--config.model.detect.score_threshold for methods that lower scores.
"""

from absl import flags
from ml_collections import config_flags

from detjax import cli, compare_nms, experiment
from detjax.ops.nms import METHODS

WORKDIR, BEST = cli.workdir_flag(), cli.best_flag()
CHANGES = config_flags.DEFINE_config_dict(
    "config",
    experiment.config({}),
    "A setting that is to be another than the run's: --config.SECTION.KEY=VALUE.",
    lock_config=False,
    accept_new_attributes=True,
)
NMS = flags.DEFINE_list("nms", list(METHODS), "Which methods.")
SPLIT = flags.DEFINE_string("split", None, "A split instead of data.eval_split.")
OUT = flags.DEFINE_string("out", None, "The folder to write to.")


def main() -> None:
    cli.launch(_compare, __doc__)


def _compare(_: list[str]) -> None:
    changes = experiment.plain({k: v for k, v in CHANGES.value.items() if v})
    if SPLIT.value is not None:
        changes.setdefault("data", {})["eval_split"] = SPLIT.value
    compare_nms.compare(
        WORKDIR.value,
        methods=NMS.value,
        best=BEST.value,
        changes=changes,
        out=OUT.value,
    )
