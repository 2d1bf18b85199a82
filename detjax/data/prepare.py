"""Converts a user's files to a data set, once."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

from absl import logging

from detjax import files, settings
from detjax.data import (
    builder,
    division,
    duplicates,
    lint,
    pixels,
    report,
    shards,
    writer,
)
from detjax.data import proposals as proposing
from detjax.data.formats import (
    coco,
    csv_labels,
    cvat,
    depth,
    depth_shapes,
    dota,
    figures,
    folders,
    instances,
    labelmaps,
    labelme,
    objectmasks,
    panoptic,
    places,
    scene_shapes,
    semantic,
    semantic_shapes,
    shape_classes,
    shape_tree,
    shapes,
    voc,
    yolo,
)
from detjax.data.records import shown
from detjax.data.summary import Summary
from detjax.errors import MissingFileError, UserError
from detjax.settings import OneOf, Positive, Seed
from detjax.types import Task

# Each has catalogues(**arguments) -> {split: Catalogue}, digests(**arguments), the name
# of the TASK that its truth is made for, and POOL: the `splits` that name all images as
# one, None where the user has to name the one to divide.
FORMATS: dict[str, ModuleType] = {
    "coco": coco,
    "yolo": yolo,
    "voc": voc,
    "labelme": labelme,
    "cvat": cvat,
    "objectmasks": objectmasks,
    "labelmaps": labelmaps,
    "dota": dota,
    "shapes": shapes,
    "shape_tree": shape_tree,
    "folders": folders,
    "csv": csv_labels,
    "shape_classes": shape_classes,
    "semantic": semantic,
    "panoptic": panoptic,
    "instances": instances,
    "depth": depth,
    "semantic_shapes": semantic_shapes,
    "depth_shapes": depth_shapes,
    "scene_shapes": scene_shapes,
    "figures": figures,
}
Format = Annotated[str, OneOf(tuple(FORMATS))]


def prepare(
    name: str,
    data_dir: str | Path,
    task: Task,
    *,
    format: Format,
    on_error: Literal["fail", "skip"] = "fail",
    split_by: Mapping[str, Positive] | None = None,
    split_seed: Seed = 0,
    balanced: bool = False,
    proposals: Mapping[str, Any] | None = None,
    log: Callable[[str], Any] = logging.info,
    **arguments: Any,
) -> Path:
    """The folder of data set `name` in `data_dir`, created if missing.

    format: of the files.
    on_error: "fail" lists problems of annotations and images and writes nothing, "skip"
        drops them and lists them in NAME-problems.txt.
    split_by: divides the images at random into splits of such parts, which have the
        same classes, see `division`: {"train": 0.8, "val": 0.2}.
    split_seed: another one divides otherwise.
    balanced: of the images that are divided as many of each class as the rarest has.
    proposals: adds region proposals to every record: {"method": "selective_search"} and
        its keywords.

    `arguments` are those of the format's `catalogues`, whose truth is for `task`. `log`
    gets the lines of the report.

    Safe for concurrent processes: one works, the others wait. An existing data set is
    used without reading its records if its annotation files are unchanged or gone.
    Raises UserError if they have changed or it was made with other arguments, OSError
    if the disk is full. Changed images are not detected.
    """
    settings.check("format", format, Format)
    if task.stored != FORMATS[format].TASK:
        raise UserError(
            f"files of the format {format!r} are for {FORMATS[format].TASK}, not for "
            f"{task.name}; take a format that is, or another model"
        )
    lint.check_choice(on_error)
    settings.check("split_seed", split_seed, Seed)
    if split_by is not None:
        split_by = settings.check("split_by", split_by, Mapping[str, Positive])
        division.check(split_by)
        arguments = pooled(format, arguments)
    settings.check_all(format, FORMATS[format].catalogues, arguments)
    writer.check_names(name, {"train": None})
    out = lint.expanded(data_dir)
    files.check_name(out)
    asked = fingerprint(format, arguments)
    asked["split_by"] = None if split_by is None else dict(split_by)
    asked["split_seed"] = 0 if split_by is None else split_seed
    if balanced:
        if split_by is None:
            raise UserError("--balanced is for images that --split-by divides; give it")
        asked["balanced"] = True
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
    if asked["split_by"]:
        (pool,) = catalogues.values()
        if asked.get("balanced"):
            whole = len(pool.entries)
            pool = division.balanced(pool, asked["split_seed"])
            log(f"balanced: {len(pool.entries)} of {whole} images are used")
        left = len(pool.entries) * (1 - sum(asked["split_by"].values()))
        if left >= 1:
            log(
                f"warning: {left:.0f} of {len(pool.entries)} images are in no split: "
                f"the parts of --split-by add up to {sum(asked['split_by'].values()):g}"
            )
        catalogues = division.divided(pool, asked["split_by"], asked["split_seed"])

    def made_from(summaries: Mapping[str, Summary]) -> dict[str, Any]:
        for found in summaries.values():
            log(report.table(found))
            for note in catalogues[found.split].notes:
                log(f"note: {note}")
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
    twins = duplicates.of(summaries)
    for found in twins:
        log(found.line())
    if twins:
        listing = out / f"{name}-duplicates.txt"
        pairs = [f"{a} is {b}" for found in twins for a, b in found.pairs]
        files.write_text(listing, shown("\n".join(pairs)) + "\n")
        log(f"pictures that are there twice are listed in {listing}")
    log(f"wrote {target}")


def pooled(format: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """`arguments` whose splits are the one pool of images that is to be divided.

    Raises UserError if they name several.
    """
    given, pool = arguments.get("splits"), FORMATS[format].POOL
    if given:
        named = list(given.values()) if isinstance(given, Mapping) else list(given)
        if len(named) > 1:
            raise UserError(
                f"--split-by divides one pool of images, and --split names "
                f"{len(named)} ({', '.join(map(str, given))}); name one, or none"
            )
        pool = {places.ALL: named[0]}
    if pool is None:
        raise UserError(
            f"--split-by divides one pool of images, which files of the format "
            f"{format!r} do not name by themselves; name the one with --split"
        )
    return {**arguments, "splits": pool}


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
    # Absent in data sets of versions that did not divide them.
    for key, before in (("split_by", None), ("split_seed", 0), ("balanced", False)):
        if asked.get(key, before) != was.get(key, before):
            return f"its {key} is {was.get(key, before)}, not {asked.get(key, before)}"
    for split, digest in (asked["splits"] or {}).items():
        if split not in was["splits"]:
            return f"it has no split {split!r}"
        if digest != was["splits"][split]:
            before = was["splits"][split]
            if {text.partition(" ")[0] for text in (before, digest)} == {"annotations"}:
                return f"the annotations of split {split!r} have changed since"
            return f"split {split!r} is of {before}, not {digest}"
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
