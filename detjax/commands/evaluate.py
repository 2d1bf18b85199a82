"""Evaluate the newest checkpoint of a run, or its best.

    --workdir=DIR [--split=test] [--best] [--config.eval.KEY=VALUE ...]

Writes eval.json and results.json to the run's folder; with --split or --config to
DIR/eval-SPLIT, with what differs from the run's settings in changes.json.
"""

from absl import flags
from ml_collections import config_flags

from detjax import cli, experiment, run, tables

WORKDIR, BEST = cli.workdir_flag(), cli.best_flag()
CHANGES = config_flags.DEFINE_config_dict(
    "config",
    experiment.config({}),
    "A setting that is to be another than the run's: --config.SECTION.KEY=VALUE.",
    lock_config=False,
    accept_new_attributes=True,
)
SPLIT = flags.DEFINE_string("split", None, "A split instead of data.eval_split.")
ALL = flags.DEFINE_bool("all", False, "Print every class of the table.")
OUT = flags.DEFINE_string("out", None, "The folder to write to.")


def main() -> None:
    cli.launch(_evaluate, __doc__)


def _evaluate(_: list[str]) -> None:
    changes = experiment.plain({k: v for k, v in CHANGES.value.items() if v})
    if SPLIT.value is not None:
        changes.setdefault("data", {})["eval_split"] = SPLIT.value
    metrics = run.evaluate(
        WORKDIR.value,
        best=BEST.value,
        changes=changes,
        out=OUT.value,
        rows=None if ALL.value else tables.MOST_ROWS,
    )
    print(cli.listed(metrics))
