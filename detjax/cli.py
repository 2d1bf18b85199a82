"""What the scripts share: flags in, one sentence out when something is wrong."""

import pathlib
import re
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from detjax import cluster, compilation

flags.DEFINE_bool("debug", False, "Show the stack trace of an error.")
flags.DEFINE_string(
    "distributed",
    None,
    "Join the other processes of the run: 'auto' on a cluster that JAX knows (TPU pod, "
    "Slurm, Open MPI, Kubernetes), else HOST:PORT,NUMBER_OF_PROCESSES,INDEX.",
)

# What users can mend themselves; anything else is a defect and shows its trace.
EXPECTED = (ValueError, OSError, TypeError, ArithmeticError, ImportError)


def run(main: Callable[[list[str]], Any]) -> None:
    """Parses flags, calls `main(positional arguments)`, and exits with its status.

    An expected error is one sentence on stderr and exit status 1; `--debug` adds where
    it came from.
    """

    def parse(argv):
        try:
            return flags.FLAGS(argv)
        except (*EXPECTED, flags.Error, KeyError, AttributeError) as error:
            # A key that the config does not have is one of the last two.
            fail(error)

    def guarded(argv):
        try:
            if flags.FLAGS.distributed:
                cluster.start(flags.FLAGS.distributed)
            return main(argv[1:])
        except EXPECTED as error:
            fail(error)
        except Exception as error:
            if not cluster.several():
                raise
            # An exit by itself would wait for the others for minutes.
            fail(error, f"{type(error).__name__}: {error}")

    # orbax narrates every file that it renames.
    logging.set_verbosity(logging.INFO if debugging() else logging.WARNING)
    if not debugging():
        # What goes wrong in the threads that write checkpoints is raised where they
        # are waited for, and said once.
        logging.get_absl_logger().addFilter(without_trace)
        threading.excepthook = lambda _: None
        sys.excepthook = in_main_thread(sys.excepthook)
        sys.unraisablehook = in_main_thread(sys.unraisablehook)
    compilation.enable_cache()
    # A config may import its neighbours, as `configs.<name>`.
    sys.path.insert(0, str(pathlib.Path(sys.argv[0]).resolve().parents[1]))
    app.run(guarded, flags_parser=parse)


def without_trace(record) -> bool:
    """Takes the stack trace off a log record, which is logged all the same."""
    record.exc_info = None
    return True


def in_main_thread(hook: Callable[..., None]) -> Callable[..., None]:
    """`hook`, but for what C++ threads report of their own."""

    def call(*what):
        if threading.current_thread() is threading.main_thread():
            hook(*what)

    return call


def fail(error: BaseException, defect: str | None = None) -> None:
    """Prints what `error` says and exits with status 1; so do a run's other processes.

    Where it is a `defect`, in these words, its trace is shown too.
    """
    lost = cluster.lost(error)
    if debugging() or (defect and not lost):
        traceback.print_exception(error)
    said = lost or defect or sentence(error)
    if cluster.several():
        cluster.leave(said)
    print(f"error: {said}", file=sys.stderr)
    sys.exit(1)


def debugging() -> bool:
    """Whether --debug was given; asked before and after flags are parsed."""
    return any(re.fullmatch(r"--?debug(=(?i:true|1))?", a) for a in sys.argv)


def sentence(error: BaseException) -> str:
    """What `error` says, without the quotes and wrappers that exceptions add."""
    while error.args and isinstance(error.args[0], BaseException):
        error = error.args[0]
    text = str(error.args[0]) if isinstance(error, KeyError) else str(error)
    # ml_collections names the nearest key in words of its own.
    unknown = re.match(r"'(\w+)'\nDid you mean \"(\w+)\"", text)
    if unknown:
        text = "the config has no key {!r}; did you mean {!r}?".format(
            *unknown.groups()
        )
    elif isinstance(error, KeyError) and text.strip("'").isidentifier():
        key = text.strip("'")
        text = f"the config has no key {key!r}; add it to the config's file first"
    return text


def config_flag() -> flags.FlagHolder:
    """The flag --config=FILE.py, with --config.section.key=value for every value."""
    return config_flags.DEFINE_config_file(
        "config", None, "An experiment: configs/<name>.py.", lock_config=True
    )


def workdir_flag(required: bool = True) -> flags.FlagHolder:
    """The flag --workdir=DIR."""
    return flags.DEFINE_string("workdir", None, "The run's folder.", required=required)


def best_flag() -> flags.FlagHolder:
    """The flag --best."""
    return flags.DEFINE_bool(
        "best", False, "Take the checkpoint that train.best kept, not the newest."
    )


def plain(config: ConfigDict) -> dict[str, Any]:
    """`config` as nested dicts of plain values, for JSON and for keyword arguments."""
    return {
        key: plain(value) if isinstance(value, ConfigDict) else value
        for key, value in config.items()
    }


def make_workdir(path: str | pathlib.Path) -> pathlib.Path:
    """`path`, made if need be. Raises OSError where it cannot be."""
    workdir = pathlib.Path(path)
    workdir.mkdir(parents=True, exist_ok=True)
    return workdir
