"""Train: python scripts/train.py --config=configs/quickstart.py --workdir=DIR.

--replay=DIR/failed-STEP replays the step whose loss was not finite.
"""

from absl import flags

from detjax import cli, run
from detjax.errors import UserError

CONFIG, WORKDIR = cli.config_flag(), cli.workdir_flag(required=False)
REPLAY = flags.DEFINE_string("replay", None, "The folder of a step that failed.")
PROFILE = flags.DEFINE_integer(
    "profile", 0, "Trace this step, counted from the start, into WORKDIR/profile."
)


def main(_):
    if REPLAY.value:
        print(run.replay_step(REPLAY.value))
        return
    if not (CONFIG.value and WORKDIR.value):
        raise UserError("give --config=FILE.py and --workdir=DIR, or --replay=DIR")
    metrics = run.train(CONFIG.value, WORKDIR.value, profile=PROFILE.value)
    print("\n".join(f"{name:24} {value:.4f}" for name, value in metrics.items()))


if __name__ == "__main__":
    cli.launch(main)
