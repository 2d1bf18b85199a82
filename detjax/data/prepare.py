"""Converts a user's files to a data set, once."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

from absl import logging

from detjax import files, settings
from detjax.data import (
    builder,
    coco,
    folders,
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
from detjax.errors import MissingFileError, UserError
from detjax.settings import OneOf
from detjax.types import Task

# Each has catalogues(**arguments) -> {split: Catalogue}, digests(**arguments), and the
# name of the TASK that its truth is made for.
FORMATS: dict[str, ModuleType] = {
    "coco": coco,
    "voc": voc,
    "labelmaps": labelmaps,
    "shapes": shapes,
    "folders": folders,
}
Format = Annotated[str, OneOf(tuple(FORMATS))]


def prepare(
    name: str,
    data_dir: str | Path,
    task: Task,
    *,
    format: Format,
    on_error: Literal["fail", "skip"] = "fail",
    proposals: Mapping[str, Any] | None = None,
    log: Callable[[str], Any] = logging.info,
    **arguments: Any,
) -> Path:
    """The folder of data set `name` in `data_dir`, created if missing.

    `arguments` are those of the format's `catalogues`, whose truth is for `task`.
    `on_error` is "fail", which lists problems of annotations and images and writes
    nothing, or "skip", which drops them and lists them in NAME-problems.txt.
    `proposals` adds region proposals to every record: {"method": "selective_search"}
    and its keywords. `log` gets the lines of the report.

    Safe for concurrent processes: one works, the others wait. An existing data set is
    used without reading its records if its annotation files are unchanged or gone.
    Raises UserError if they have changed or it was made with other arguments, OSError
    if the disk is full. Changed images are not detected.
    """
    settings.check("format", format, Format)
    if task.name != FORMATS[format].TASK:
        raise UserError(
            f"files of the format {format!r} are for {FORMATS[format].TASK}, not for "
            f"{task.name}; take a format that is, or another model"
        )
    lint.check_choice(on_error)
    settings.check_all(format, FORMATS[format].catalogues, arguments)
    writer.check_names(name, {"train": None})
    out = lint.expanded(data_dir)
    files.check_name(out)
    asked = fingerprint(format, arguments)
    asked["proposals"] = None if proposals is None else proposing.complete(proposals)
    target = builder.directory(name, out)
    # Existing data sets are only read: they may be another user's or on a read-only
    # disk.
    if not target.exists():
        with files.lock(_lock_file(out, name), "making it", wait=True):
            if not target.exists():
                _make(target, task, asked, arguments, on_error, proposals, log)
                return target
    _check_same(builder.info(name, out), asked, on_error)
    log(f"{target} is there already")
    return target


def _make(
    target: Path,
    task: Task,
    asked: dict[str, Any],
    arguments: Mapping[str, Any],
    on_error: str,
    proposals: Mapping[str, Any] | None,
    log: Callable[[str], Any],
) -> None:
    """Creates the data set `target`; the caller holds the lock."""
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
        if all(s.ids for s in made) and not any(
            sum(s.class_counts().values()) for s in made
        ):
            raise UserError(
                f"no image of {name!r} has an object or a label: nothing could be "
                "learnt; check its annotations and classes"
            )
        return asked | {"problems": len(problems)}

    _, summaries = writer.write(
        catalogues,
        name,
        out,
        task,
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


def fingerprint(format: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The fingerprint of a data set's inputs, except paths, as JSON values.

    The splits are None if annotation files are gone.
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
    """Raises UserError if a data set does not match the requested one."""
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
    # Absent in data sets of versions without proposals.
    if asked["proposals"] != was.get("proposals"):
        return f"its proposals are {was.get('proposals')}, not {asked['proposals']}"
    if on_error == "fail" and was["problems"]:
        return f"{was['problems']} problems were skipped; allow it with 'skip'"
    return ""


def _lock_file(out: Path, name: str) -> Path:
    """The lock file of the data set `name`; creates `out`."""
    path = out / f".{name}.lock"
    with files.writing(path):
        out.mkdir(parents=True, exist_ok=True)
    return path
