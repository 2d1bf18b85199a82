"""From a user's files to a data set that can be trained on, at most once."""

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from absl import logging

from detjax import files
from detjax.data import (
    builder,
    coco,
    labelmaps,
    lint,
    pixels,
    report,
    shapes,
    shards,
    voc,
    writer,
)
from detjax.data import proposals as proposing
from detjax.data.summary import Summary
from detjax.errors import MissingFileError, UserError, mended_by

# Each has catalogues(**arguments) -> {split: Catalogue} and digests(**arguments).
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

    `arguments` are those of the format's `catalogues`. `on_error` is "fail", which
    lists what is bad in annotations and images and makes nothing, or "skip", which
    drops it and lists it in NAME-problems.txt. `proposals` asks for boxes that may hold
    an object, a field of every record: {"method": "selective_search"} and its keywords.
    `log` gets the lines of the report.

    Several processes may call at once: one works, the others wait. A data set that is
    there is taken as it is, its files unread, where its annotation files have not
    changed or are gone. Raises UserError where they have changed or it was made with
    other arguments, OSError where there is no room. That images changed is not noticed.
    """
    if format not in FORMATS:
        raise UserError(f"unknown format {format!r}; take one of {', '.join(FORMATS)}")
    lint.check_choice(on_error)
    _check_arguments(format, arguments)
    writer.check_names(name, {"train": None})
    out = lint.expanded(data_dir)
    files.check_name(out)
    asked = fingerprint(format, arguments)
    asked["proposals"] = None if proposals is None else proposing.complete(proposals)
    target = builder.directory(name, out)
    # What is there is only read: it may be another user's, or on a disk for reading.
    if not target.exists():
        with files.lock(_lock_file(out, name), "making it", wait=True):
            if not target.exists():
                _make(target, asked, arguments, on_error, proposals, log)
                return target
    _check_same(builder.info(name, out), asked, on_error)
    log(f"{target} is there already")
    return target


def _make(
    target: Path,
    asked: dict[str, Any],
    arguments: Mapping[str, Any],
    on_error: str,
    proposals: Mapping[str, Any] | None,
    log: Callable[[str], Any],
) -> None:
    """Makes the data set `target`; its caller holds the lock."""
    name, out = target.parent.name, target.parents[1]
    shards.remove_leftovers(target)
    pixels.quiet()
    if proposals is not None:
        proposing.check()
    catalogues = FORMATS[asked["format"]].catalogues(**arguments)

    def made_from(summaries: Mapping[str, Summary]) -> dict[str, Any]:
        for found in summaries.values():
            log(report.table(found))
        problems = [p for found in summaries.values() for p in found.problems]
        lint.settle(problems, on_error)
        made = summaries.values()
        if all(s.ids for s in made) and not any(s.counts()["objects"] for s in made):
            raise UserError(
                f"no image of {name!r} has an object: nothing could be learnt; check "
                "its annotations and classes"
            )
        return asked | {"problems": len(problems)}

    _, summaries = writer.write(
        catalogues,
        name,
        out,
        on_error=on_error,
        proposals=proposals,
        made_from=made_from,
    )
    problems = [str(p) for found in summaries.values() for p in found.problems]
    if problems:
        listing = out / f"{name}-problems.txt"
        files.write_text(listing, "\n".join(problems) + "\n")
        log(f"{len(problems)} problems are listed in {listing}")
    log(f"wrote {target}")


def _check_arguments(format: str, arguments: Mapping[str, Any]) -> None:
    """Raises UserError for keywords that the format does not take, or lacks."""
    signature = inspect.signature(FORMATS[format].catalogues)
    advice = f"the format {format!r} takes {', '.join(signature.parameters)}"
    with mended_by(advice, (TypeError,)):
        signature.bind(**arguments)
    for name in ("splits", "images", "root", "classes"):
        given = arguments.get(name)
        if given is not None and not _sound(name, given, format):
            raise UserError(f"{name}={given!r} is not what it should be; {advice}")


def _sound(name: str, given: Any, format: str) -> bool:
    """Whether an argument is a path, or names, or both, as its name asks for."""
    if isinstance(given, Mapping) and name in ("splits", "images"):
        return all(isinstance(x, str | os.PathLike) for x in (*given, *given.values()))
    if name in ("images", "root"):
        return isinstance(given, str | os.PathLike)
    names = isinstance(given, Sequence) and not isinstance(given, str)
    if name == "splits" and format != "voc":
        return False
    return names and all(isinstance(x, str) for x in given)


def fingerprint(format: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """What decides the contents of a data set, paths excepted, as JSON would hold it.

    The splits are None where annotation files are gone.
    """
    try:
        splits = FORMATS[format].digests(**arguments)
    except MissingFileError:
        splits = None
    classes = arguments.get("classes")
    return {
        "format": format,
        "classes": None if classes is None else list(classes),
        "splits": splits,
    }


def _check_same(made: builder.Info, asked: dict[str, Any], on_error: str) -> None:
    """Raises UserError where a data set is not what was asked for."""
    difference = _difference(made, asked, on_error)
    if difference:
        raise UserError(
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


def _lock_file(out: Path, name: str) -> Path:
    """The file that a process locks which makes the data set `name`; makes `out`."""
    path = out / f".{name}.lock"
    with files.writing(path):
        out.mkdir(parents=True, exist_ok=True)
    return path
