"""What features of a frozen network tell about other classes: linear probes.

    --config=configs/sign_digits.py --config.train.init_from=WEIGHTS --workdir=DIR

Features of the training split are computed once, and kept in DIR/features. Prints the
accuracy in folds of it and by images a class, of ridge regression and of logistic
regression; --shots= --folds=0 leave that table out, which takes most of the time of a
large set, and --method=ridge solves what would be hours of logistic regression. DIR is
then a run whose head is the probe, for evaluations, predictions and
train.init_from.
"""

from absl import flags

from detjax import cli, linear, probe
from detjax.errors import UserError

CONFIG, WORKDIR = cli.config_flag(), cli.workdir_flag()
METHOD = flags.DEFINE_enum(
    "method", "logistic", [*linear.METHODS], "What becomes the head."
)
SHOTS = flags.DEFINE_list("shots", [*map(str, probe.SHOTS)], "Images a class.")
REPEATS = flags.DEFINE_integer("repeats", 10, "Draws of so many.", lower_bound=1)
FOLDS = flags.DEFINE_integer("folds", 5, "Folds of all images.", lower_bound=0)


def main() -> None:
    cli.launch(_probe, __doc__)


def _probe(_: list[str]) -> None:
    if not CONFIG.value:
        raise UserError("give --config=FILE.py of a classifier and its data")
    if not all(n.isdecimal() and int(n) for n in SHOTS.value):
        raise UserError(f"--shots={','.join(SHOTS.value)} are no whole numbers above 0")
    if FOLDS.value == 1:
        raise UserError("--folds=1 leaves nothing to learn from; give 0, or 2 and more")
    found = probe.probe(
        CONFIG.value,
        WORKDIR.value,
        method=METHOD.value,  # type: ignore[arg-type]
        shots=[int(n) for n in SHOTS.value],
        repeats=REPEATS.value,
        folds=FOLDS.value,
    )
    print(found["table"])
    print(cli.listed(found["metrics"]))
