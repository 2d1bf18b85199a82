"""Which way of transfer suits a data set, and the keys of the config for it.

    --config=configs/sign_digits.py --config.train.init_from=RUN --workdir=DIR

Counts the images a class, and measures how alike the pictures are to those that RUN has
learnt from. --images=N and --similar or --different overrule both; the last is needed
for imported weights, whose pictures are not here.
"""

from absl import flags

from detjax import advise, cli
from detjax.errors import UserError

CONFIG, WORKDIR = cli.config_flag(), cli.workdir_flag()
IMAGES = flags.DEFINE_integer("images", None, "Images a class.", lower_bound=1)
SIMILAR = flags.DEFINE_bool("similar", None, "The pictures are alike.")
DIFFERENT = flags.DEFINE_bool("different", None, "They are not.")


def main() -> None:
    cli.launch(_advise, __doc__)


def _advise(_: list[str]) -> None:
    if not CONFIG.value:
        raise UserError("give --config=FILE.py of the model and its data")
    if SIMILAR.value is not None and DIFFERENT.value is not None:
        raise UserError("--similar and --different exclude each other; give one")
    similar = SIMILAR.value if DIFFERENT.value is None else not DIFFERENT.value
    print(
        advise.advise(CONFIG.value, WORKDIR.value, images=IMAGES.value, similar=similar)
    )
