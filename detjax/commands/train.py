"""Train a config, evaluate it and draw predictions.

    --config=configs/quickstart.py --workdir=DIR

The same command again goes on from the newest checkpoint. --config takes a file or the
name of a config that comes with detjax (`detjax configs` lists them); every value of
it can be set: --config.train.steps=500. --replay=DIR/failed-STEP replays the step whose
loss was not finite.
"""

from absl import flags

from detjax import cli, run
from detjax.errors import UserError

CONFIG, WORKDIR = cli.config_flag(), cli.workdir_flag(required=False)
REPLAY = flags.DEFINE_string("replay", None, "The folder of a step that failed.")
PROFILE = flags.DEFINE_integer(
    "profile", 0, "Trace this step, counted from the start, into WORKDIR/profile."
)


def main() -> None:
    cli.launch(_train, __doc__)


def _train(_: list[str]) -> None:
    if REPLAY.value:
        print(run.replay_step(REPLAY.value))
        return
    if not (CONFIG.value and WORKDIR.value):
        raise UserError("give --config=FILE.py and --workdir=DIR, or --replay=DIR")
    metrics = run.train(CONFIG.value, WORKDIR.value, profile=PROFILE.value)
    print(cli.listed(metrics))
