"""Look inside a trained network: what it has learnt, and why it answers as it does.

    VIEW --workdir=DIR --out=DIR2 [PICTURE_OR_FOLDER...] [--OPTION=VALUE...]

Without pictures a few of the run's evaluation split are taken. Published weights that
`import_weights.py` has converted are a --workdir too. The views, with their options:
"""

import re
import sys

from absl import flags

from detjax import cli
from detjax.errors import UserError
from detjax.explain import run

WORKDIR, BEST = cli.workdir_flag(), cli.best_flag()
OUT = flags.DEFINE_string("out", None, "Where pictures go.", required=True)
COUNT = flags.DEFINE_integer(
    "count", 4, "Pictures of the data set, where none are named.", lower_bound=1
)


def main() -> None:
    try:
        argv, options = split(sys.argv[1:])
    except UserError as error:
        cli.fail(error, str(error))
    sys.argv[1:] = argv
    asked = {"--help", "-help", "-h", "-?"} & {*argv}
    chosen = [name for name in argv if name in run.names()][:1] or run.names()
    about = f"{__doc__}\n{run.usage(chosen)}" if asked else __doc__
    cli.launch(lambda paths: _explain(paths, options), about)


def split(argv: list[str]) -> tuple[list[str], dict[str, str]]:
    """The arguments that are this command's, and the options of a view by name.

    An option is "--name=value" or "--name value"; of one that is on or off "--name" is
    "--name=True".
    """
    own, options, waiting = [], {}, ""
    switches = run.switches([name for name in argv if name in run.names()][:1])
    for place, argument in enumerate(argv):
        if waiting:
            options[waiting], waiting = argument, ""
            continue
        if argument == "--":
            own += argv[place:]
            break
        found = re.fullmatch(r"--?(\w[\w-]*)(?:=(.*))?", argument, re.DOTALL)
        if found is None or _known(found[1]):
            own.append(argument)
            continue
        name, value = found[1].replace("-", "_"), found[2]
        if value is None and name not in switches:
            waiting = name
        else:
            options[name] = "True" if value is None else value
    if waiting:
        raise UserError(f"--{waiting} is given no value; write --{waiting}=VALUE")
    return own, options


def _known(name: str) -> bool:
    """Whether absl has a flag of this name."""
    return name in ("help", "h") or any(
        known in flags.FLAGS for known in (name, name.removeprefix("no"))
    )


def _explain(paths: list[str], options: dict[str, str]) -> None:
    if not paths:
        raise UserError(f"name a view: {', '.join(run.names())}")
    name, *pictures = paths
    written = run.explain(
        name,
        WORKDIR.value,
        OUT.value,
        pictures,
        best=BEST.value,
        count=COUNT.value,
        **run.parsed(name, options),
    )
    for path in written:
        print(path)
