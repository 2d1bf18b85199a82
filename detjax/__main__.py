"""The command `detjax`: its first argument names a module of `detjax.commands`."""

import importlib
import sys

import detjax
from detjax import config_files
from detjax.settings import nearest

COMMANDS = {
    "make-dataset": "a data set from your own pictures and labels",
    "look": "draw the labels of a data set, and their sizes",
    "anchors": "fit anchors to a data set",
    "configs": "list the experiments that come with detjax, or print one",
    "models": "the classifiers and backbones, or the layers of one",
    "train": "train a config, evaluate and draw what was learnt",
    "evaluate": "metrics of a trained model",
    "compare-nms": "AP of a trained model by every method of suppression",
    "predict": "draw predictions for pictures",
    "explain": "look inside a trained model: what it learnt, and why it answers so",
    "import-weights": "published weights, to predict with or to start from",
    "probe": "what a frozen network's features tell: linear probes",
    "advise": "which way of transfer suits a data set",
    "export-weights": "the weights of a run as a file of darknet",
}


def main() -> None:
    """Runs a command; the rest of the arguments are its flags."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("--version", "-V"):
        print(f"detjax {detjax.__version__}")
    elif name in ("--help", "-h", "help"):
        print(usage())
    elif name.replace("_", "-") not in COMMANDS:
        close = nearest(name, COMMANDS)
        print(f"error: {name!r} is no command{close}\n\n{usage()}", file=sys.stderr)
        sys.exit(1)
    else:
        sys.argv = [f"detjax {name}", *sys.argv[2:]]
        module = importlib.import_module(f"detjax.commands.{name.replace('-', '_')}")
        module.main()


def usage() -> str:
    """What the command can do."""
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name:{width}}  {what}" for name, what in COMMANDS.items())
    return (
        "usage: detjax COMMAND [FLAGS]\n\n"
        f"{listed}\n\n"
        "`detjax COMMAND --help` lists the flags; configs that come with it are in\n"
        f"{config_files.HERE}"
    )


if __name__ == "__main__":
    main()
