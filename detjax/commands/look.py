"""Look at labels before training.

    NAME [--split=train] [--out=DIR]

Draws grid.png (pictures with their labels), classes.png (crops by class) and sizes.png
(sizes of objects and pictures, numbers by class) of a prepared data set.
"""

from absl import flags

from detjax import cli, look
from detjax.errors import UserError

DATA_DIR = flags.DEFINE_string("data_dir", "datasets", "The folder of data sets.")
SPLIT = flags.DEFINE_string("split", "train", "A split, or a part: 'train[:10%]'.")
OUT = flags.DEFINE_string("out", None, "The folder to draw into; NAME-look if unset.")
SEED = flags.DEFINE_integer("seed", 0, "The seed of the sample.", lower_bound=0)
RECORDS = flags.DEFINE_integer("records", 2000, "Pictures to count.", lower_bound=1)
PICTURES = flags.DEFINE_integer("pictures", 12, "Pictures to draw.", lower_bound=1)


def main() -> None:
    cli.launch(_look, __doc__)


def _look(names: list[str]) -> None:
    if len(names) != 1:
        raise UserError(f"give the name of one data set; {len(names)} were given")
    print(
        look.look(
            names[0],
            DATA_DIR.value,
            SPLIT.value,
            out=OUT.value or f"{names[0]}-look",
            seed=SEED.value,
            records=RECORDS.value,
            pictures=PICTURES.value,
        )
    )
