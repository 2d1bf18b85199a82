"""Draw predictions for pictures, and write them to predictions.json.

--workdir=DIR --out=DIR2 IMAGE_OR_FOLDER...
"""

import sys

from absl import flags

from detjax import cli, predict_files
from detjax.errors import UserError

WORKDIR, BEST = cli.workdir_flag(), cli.best_flag()
OUT = flags.DEFINE_string("out", None, "Where pictures go.", required=True)
MIN_SCORE = flags.DEFINE_float("min_score", 0.3, "Leave out detections below this.")
BATCH = flags.DEFINE_integer(
    "batch_size",
    None,
    "Pictures that go to the devices together; by default 1 on a CPU, 8 a device else.",
    lower_bound=1,
)


def main() -> None:
    cli.launch(_predict, __doc__)


def _predict(paths: list[str]) -> int:
    if not paths:
        raise UserError("no images were given; name files or folders after the flags")
    complaints = predict_files.predict(
        WORKDIR.value,
        OUT.value,
        paths,
        min_score=MIN_SCORE.value,
        best=BEST.value,
        batch_size=BATCH.value,
        log=print,
    )
    for complaint in complaints:
        print(f"error: {complaint}", file=sys.stderr)
    return 1 if complaints else 0
