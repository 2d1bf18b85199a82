"""Draw predictions for pictures, and write them to predictions.json.

--workdir=DIR --out=DIR2 IMAGE_OR_FOLDER...
"""

import sys
from typing import Any

from absl import flags

from detjax import cli, predict_files, tiles
from detjax.errors import UserError

WORKDIR, BEST = cli.workdir_flag(), cli.best_flag()
OUT = flags.DEFINE_string("out", None, "Where pictures go.", required=True)
MIN_SCORE = flags.DEFINE_float(
    "min_score",
    None,
    "Leave out what scores below this: 0.3 for detections, 0 for maps of pixels.",
)
BATCH = flags.DEFINE_integer(
    "batch_size",
    None,
    "Pictures that go to the devices together; by default 1 on a CPU, 8 a device else.",
    lower_bound=1,
)
WHOLE = flags.DEFINE_bool(
    "whole", False, "Look at pictures in their own size, and do not resize them."
)
TILE = flags.DEFINE_integer(
    "tile",
    None,
    "Look at pictures in their own size in tiles of so many pixels a side, and blend "
    "the answers.",
    lower_bound=1,
)
OVERLAP = flags.DEFINE_integer(
    "overlap", None, "Pixels that tiles share; by default a quarter.", lower_bound=0
)
FLIP = flags.DEFINE_bool(
    "flip", None, "Also look at pictures mirrored; by default as the run's evaluation."
)
SCALES = flags.DEFINE_list(
    "scales",
    None,
    "Look at pictures at these sizes, such as 0.75,1,1.25, and merge the answers; by "
    "default as the run's evaluation.",
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
        whole=_whole(),
        **_views(),
    )
    for complaint in complaints:
        print(f"error: {complaint}", file=sys.stderr)
    return 1 if complaints else 0


def _whole() -> tiles.Whole | None:
    """How pictures are seen in their own size, if they are."""
    if not WHOLE.value and TILE.value is None and OVERLAP.value is None:
        return None
    return tiles.whole(TILE.value, OVERLAP.value)


def _views() -> dict[str, Any]:
    """The settings of `tta.augmented` that flags replace."""
    views: dict[str, Any] = {}
    if FLIP.value is not None:
        views["flip"] = FLIP.value
    if SCALES.value is not None:
        try:
            views["scales"] = tuple(map(float, SCALES.value))
        except ValueError:
            views["scales"] = ()
        if not views["scales"] or min(views["scales"]) <= 0:
            raise UserError(
                f"--scales={','.join(SCALES.value)} are not numbers above 0, such as "
                "0.75,1,1.25"
            )
    return views
