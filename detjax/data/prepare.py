"""From a user's files to a data set that can be trained on, at most once."""

import contextlib
import fcntl
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from absl import logging

from detjax.data import builder, coco, labelmaps, lint, report, shapes, voc
from detjax.data import proposals as proposing

# Each has read_splits(**arguments) -> {split: Dataset} and digests(**arguments).
FORMATS: dict[str, ModuleType] = {
    "coco": coco,
    "voc": voc,
    "labelmaps": labelmaps,
    "shapes": shapes,
}


def prepare(
    name: str,
    data_dir: str | Path,
    *,
    format: str,
    on_error: str = "fail",
    proposals: Mapping[str, Any] | None = None,
    log: Callable[[str], Any] = logging.info,
    **arguments: Any,
) -> Path:
    """The folder of data set `name` below `data_dir`, made if it is not there.

    `arguments` are those of the format's `read_splits`. `on_error` is "fail", which
    stops at bad annotations before anything is written, or "skip", which drops them and
    lists them in NAME-problems.txt. `proposals` asks for boxes that may hold an object,
    a field of every record: {"method": "selective_search"} and its keywords. `log` gets
    the lines of the report.

    Several processes may call at once: one works, the others wait. A data set that is
    there is taken as it is, its files unread, where its annotation files have not
    changed or are gone. Raises ValueError where they have changed or it was made with
    other arguments. That images changed is not noticed.
    """
    if format not in FORMATS:
        raise ValueError(f"unknown format {format!r}; take one of {', '.join(FORMATS)}")
    lint.check_choice(on_error)
    out = Path(data_dir).expanduser()
    asked = fingerprint(format, arguments)
    asked["proposals"] = None if proposals is None else proposing.complete(proposals)
    with _lock(out, name):
        target = builder.directory(name, out)
        if target.exists():
            _check_same(builder.info(name, out), asked, on_error)
            log(f"{target} is there already")
            return target
        datasets = FORMATS[format].read_splits(**arguments)
        for dataset in datasets.values():
            log(report.table(dataset))
        lint.settle(datasets.values(), on_error)
        problems = [str(p) for d in datasets.values() for p in d.problems]
        if problems:
            listing = out / f"{name}-problems.txt"
            listing.write_text("\n".join(problems) + "\n")
            log(f"{len(problems)} problems are listed in {listing}")
        for remains in target.parent.glob("incomplete.*"):
            shutil.rmtree(remains)  # of a run that was killed: we hold the lock
        if proposals is not None:
            for split, dataset in datasets.items():
                log(
                    f"looking for proposals in {len(dataset.records)} images of {split}"
                )
                proposing.add(dataset.records, proposals)
        made_from = asked | {"problems": len(problems)}
        builder.write(datasets, name, out, made_from=made_from)
        log(f"wrote {target}")
    return target


def fingerprint(format: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """What decides the contents of a data set, paths excepted, as JSON would hold it.

    The splits are None where annotation files are gone.
    """
    try:
        splits = FORMATS[format].digests(**arguments)
    except FileNotFoundError:
        splits = None
    classes = arguments.get("classes")
    return {
        "format": format,
        "classes": None if classes is None else list(classes),
        "splits": splits,
    }


def _check_same(made: builder.Info, asked: dict[str, Any], on_error: str) -> None:
    """Raises ValueError where a data set is not what was asked for."""
    difference = _difference(made, asked, on_error)
    if difference:
        raise ValueError(
            f"data set {made.name!r} is there but is another: {difference}; delete "
            f"{made.directory.parent} or choose another name"
        )


def _difference(made: builder.Info, asked: dict[str, Any], on_error: str) -> str:
    was = made.made_from
    if not was:
        return "it was not made here"
    if asked["format"] != was["format"]:
        return f"it was made from {was['format']}, not {asked['format']}"
    classes = list(made.classes) if asked["classes"] else was["classes"]
    if asked["classes"] != classes:
        return f"its classes are {classes}, not {asked['classes']}"
    for split, digest in (asked["splits"] or {}).items():
        if split not in was["splits"]:
            return f"it has no split {split!r}"
        if digest != was["splits"][split]:
            return f"split {split!r} is of {was['splits'][split]}, not {digest}"
    # Sets that were written before there were proposals do not say.
    if asked["proposals"] != was.get("proposals"):
        return f"its proposals are {was.get('proposals')}, not {asked['proposals']}"
    if on_error == "fail" and was["problems"]:
        return f"{was['problems']} problems were skipped; allow it with 'skip'"
    return ""


@contextlib.contextmanager
def _lock(out: Path, name: str) -> Iterator[None]:
    """Waits until no other process makes the data set `name`."""
    out.mkdir(parents=True, exist_ok=True)
    with open(out / f".{name}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
