"""Shared by the commands: flags, configs by name, exit status and error messages."""

import contextlib
import os
import pathlib
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

from absl import app, flags, logging
from ml_collections import config_flags

import detjax
from detjax import cluster, compilation, config_files, files
from detjax.errors import UserError, reason

flags.DEFINE_bool("debug", False, "Show the stack trace of an error.")
flags.DEFINE_string(
    "distributed",
    None,
    "Join the other processes of the run: 'auto' on a cluster that JAX knows (TPU pod, "
    "Slurm, Open MPI, Kubernetes), else HOST:PORT,NUMBER_OF_PROCESSES,INDEX.",
)


def launch(main: Callable[[list[str]], Any], about: str) -> None:
    """Parses flags, calls `main(positional arguments)`, and exits with its status.

    `--help` prints `about` and the flags. User errors are a one-line message on stderr
    and exit status 1; `--debug` adds the stack trace. Bugs always show it. Ctrl-C is
    exit status 130.
    """

    def parse(argv):
        if {"--help", "-help", "-h", "-?"} & {*argv[1:]}:
            print(usage(about))
            sys.exit(0)
        try:
            return flags.FLAGS(with_paths(argv))
        except Exception as error:
            # Errors of the command line, or of the config file, which is code.
            fail(error, sentence(error))

    def guarded(argv):
        with reported():
            if flags.FLAGS.distributed:
                cluster.start(flags.FLAGS.distributed)
            return main(argv[1:])

    # orbax logs every file that it renames.
    logging.set_verbosity(logging.INFO if debugging() else logging.WARNING)
    if not debugging():
        # Errors in the threads that write checkpoints are raised, and reported once,
        # where they are joined.
        logging.get_absl_logger().addFilter(without_trace)
        threading.excepthook = lambda _: None
        sys.excepthook = in_main_thread(sys.excepthook)
        sys.unraisablehook = in_main_thread(sys.unraisablehook)
    tolerate_odd_streams()
    compilation.enable_cache()
    config_files.make_importable()
    app.run(guarded, flags_parser=parse)


def usage(about: str) -> str:
    """The text of --help: what a command does, and its flags."""
    modules = flags.FLAGS.flags_by_module_dict()
    held = {
        flag.name: flag
        for module, found in modules.items()
        if module.startswith("detjax.")
        for flag in found
    }
    held |= {name: flags.FLAGS[name] for name in ("config",) if name in flags.FLAGS}
    lines = []
    for name in sorted(held):
        flag = held[name]
        usual = "" if flag.default in (None, False, "") else f" [{flag.default}]"
        lines.append(f"  --{name}: {flag.help}{usual}")
    return f"{about.strip()}\n\nflags:\n" + "\n".join(lines)


def with_paths(argv: list[str]) -> list[str]:
    """`argv` with the path of a config where --config names one."""
    found, expected = [], False
    for argument in argv:
        flag, sign, value = argument.partition("=")
        if expected:
            argument = config_files.find(argument)
        elif flag in ("--config", "-config") and sign:
            argument = f"{flag}={config_files.find(value)}"
        expected = not expected and argument in ("--config", "-config")
        found.append(argument)
    return found


def listed(metrics: Mapping[str, float]) -> str:
    """Metrics by name, a line each, but for those of single classes."""
    said = {k: v for k, v in metrics.items() if k.rpartition("/")[0] not in metrics}
    lines = [f"{name:24} {value:.4f}" for name, value in said.items()]
    if -1 in said.values():
        lines.append("-1: the split has nothing that this metric counts")
    return "\n".join(lines)


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Ends the process with a message if the block raises."""
    try:
        yield
    except KeyboardInterrupt:
        if cluster.several():
            cluster.leave("interrupted")
        print("error: interrupted", file=sys.stderr)
        # Running threads and workers would delay the exit.
        sys.stdout.flush()
        os._exit(128 + signal.SIGINT)
    except (UserError, OSError) as error:
        fail(error, sentence(error))
    except Exception as error:
        if out_of_memory(error):
            fail(
                error,
                f"there is not enough memory ({reason(error)}); set data.batch_size, "
                "data.size or data.workers lower, or use a machine with more",
            )
        fail(error, defect(error), trace=True)


def out_of_memory(error: BaseException) -> bool:
    """Whether the machine or a device ran out of memory."""
    return isinstance(error, MemoryError) or bool(
        re.search("RESOURCE_EXHAUSTED|out of memory|Insufficient memory", str(error))
    )


def defect(error: BaseException) -> str:
    """The message for a bug."""
    return (
        f"{type(error).__name__}: {reason(error)}; this is a defect of detjax "
        f"{detjax.__version__} and not a mistake of yours: please report it with the "
        "trace above and the command (README, 'Reporting a defect')"
    )


def tolerate_odd_streams() -> None:
    """Keeps a run alive when its output is closed, or the locale cannot encode it.

    Class names and paths hold characters that a locale may not have, and a terminal or
    a pipe may be closed under a run of days.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  # to the end
            continue
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    sys.stderr = Patient(sys.stderr)


class Patient:
    """A text stream that drops output once its target is closed."""

    def __init__(self, stream: Any):
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(BrokenPipeError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def without_trace(record) -> bool:
    """Removes the stack trace from a log record, which is still logged."""
    record.exc_info = None
    return True


def in_main_thread(hook: Callable[..., None]) -> Callable[..., None]:
    """`hook`, except for errors that C++ threads report themselves."""

    def call(*what):
        if threading.current_thread() is threading.main_thread():
            hook(*what)

    return call


def fail(error: BaseException, said: str, trace: bool = False) -> NoReturn:
    """Prints the message `said` about `error` and exits with status 1.

    So do a run's other processes. With `trace` or --debug also prints the stack trace.
    """
    lost = cluster.lost(error)
    if debugging() or (trace and not lost):
        traceback.print_exception(error)
    said = lost or said
    if cluster.several():
        cluster.leave(said)
    print(f"error: {said}", file=sys.stderr)
    sys.exit(1)


def debugging() -> bool:
    """Whether --debug was given; works before and after flags are parsed."""
    return any(re.fullmatch(r"--?debug(=(?i:true|1))?", a) for a in sys.argv)


def sentence(error: BaseException) -> str:
    """The message of `error`, without the quotes and wrappers that exceptions add."""
    while error.args and isinstance(error.args[0], BaseException):
        error = error.args[0]
    text = str(error.args[0]) if isinstance(error, KeyError) else str(error)
    off = re.search(r"(?:'bool'>.* Attempting to lookup: |^Override )(\S+)", text)
    # ml_collections adds its own suggestion of the nearest key.
    unknown = re.match(r"'(\w+)'\nDid you mean \"(\w+)\"", text)
    if unknown:
        text = "the config has no key {!r}; did you mean {!r}?".format(
            *unknown.groups()
        )
    elif off:
        text = f"--config.{off[1]} sets a part of what is switched off in the config"
    elif text.startswith("Attribute <class 'NoneType'>"):
        text = "the config's get_config() returned None"
        text += "; return experiment.config({...})"
    elif isinstance(error, KeyError) and text.strip("'").isidentifier():
        key = text.strip("'")
        text = f"the config has no key {key!r}; add it to the config's file first"
    return text


def config_flag(**options: Any) -> flags.FlagHolder:
    """The flag --config=FILE.py, with --config.section.key=value for every value.

    `options` are those of `config_flags.DEFINE_config_file`.
    """
    return config_flags.DEFINE_config_file(
        "config",
        None,
        "An experiment: configs/<name>.py.",
        # Settings that the file omits can be set; unknown ones are refused later.
        lock_config=False,
        accept_new_attributes=True,
        **options,
    )


def workdir_flag(required: bool = True) -> flags.FlagHolder:
    """The flag --workdir=DIR."""
    return flags.DEFINE_string("workdir", None, "The run's folder.", required=required)


def best_flag() -> flags.FlagHolder:
    """The flag --best."""
    return flags.DEFINE_bool(
        "best", False, "Take the checkpoint that train.best kept, not the newest."
    )


def make_workdir(path: str | pathlib.Path) -> pathlib.Path:
    """`path`, created if missing. Raises OSError if that fails."""
    workdir = pathlib.Path(path)
    files.check_name(workdir)
    with files.writing(workdir):
        workdir.mkdir(parents=True, exist_ok=True)
    return workdir
