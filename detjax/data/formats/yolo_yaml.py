"""YOLO's data.yaml: the names of classes and keypoints, and the places of splits."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from detjax import files
from detjax.data import frames, lint, pictures
from detjax.errors import MissingFileError, UserError

SPLITS = ("train", "val", "test")
_USUAL = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_LISTS = ("classes.txt", "obj.names", "classes.names", "_darknet.labels", "labels.txt")
_LARGEST = 16 << 20


class Description(NamedTuple):
    """What a data set says of itself; `names` and `splits` are empty if nothing."""

    base: Path  # the folder that all of it is in
    file: Path | None  # the YAML file
    names: dict[int, str]
    splits: dict[str, list[Path]]  # folders of pictures, or lists of pictures
    keypoints: tuple[str, ...] = ()
    dims: int = 3  # numbers of a keypoint


def describe(root: Path) -> Description:
    """The description of the data set at `root`, a YAML file or a folder.

    Without a YAML file, names are those of classes.txt, and splits those of the folders
    images/train or train/images. Raises UserError.
    """
    if root.is_file():
        return _described(root)
    found = [root / name for name in _USUAL if (root / name).is_file()]
    if not found:
        yamls = sorted(p for p in root.glob("*.y*ml") if p.suffix in (".yaml", ".yml"))
        found = [path for path in yamls if re.search("^names *:", _text(path), re.M)]
    if len(found) > 1 and found[0].name not in _USUAL:
        names = ", ".join(path.name for path in found)
        raise UserError(f"{root} has {names}; give the one to use with --root")
    if found:
        return _described(found[0])
    return Description(root, None, _listed_names(root), _folders(root))


def _text(path: Path) -> str:
    if path.is_file() and path.stat().st_size > _LARGEST:
        raise UserError(f"{path} is larger than a description of a data set can be")
    return files.read_text(path)


def _listed_names(root: Path) -> dict[int, str]:
    """The classes of a text file with one a line, if there is one."""
    for folder in (root, root / "labels", root.parent):
        for name in _LISTS:
            if (folder / name).is_file():
                lines = [x.strip() for x in _text(folder / name).splitlines()]
                return dict(enumerate(line for line in lines if line))
    return {}


def _folders(root: Path) -> dict[str, list[Path]]:
    """The splits of folders images/train or train/images, by the folders' names."""
    images = root / "images"
    inner = _inner(images) if images.is_dir() else []
    held = {p.name: [p] for p in inner if pictures.below(p)}
    if not held:
        held = {p.name: [p / "images"] for p in _inner(root) if (p / "images").is_dir()}
    return {_usual(name): place for name, place in held.items()}


def _usual(name: str) -> str:
    return "val" if name in ("valid", "validation") else name


def _inner(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and p.name[0] != ".")


def _described(path: Path) -> Description:
    import yaml

    try:
        held = yaml.safe_load(_text(path))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        said = " ".join(str(error).split())[:200]
        raise UserError(f"{path} cannot be read as YAML: {said}") from None
    if not isinstance(held, Mapping) or "names" not in held:
        raise UserError(
            f"{path} has no names: a data.yaml of YOLO has the classes as `names`, and "
            "the places of the splits as `train` and `val`"
        )
    names = _names(held, path)
    points, dims = _keypoints(held, names, path)
    splits = {
        split: _places(held[key], held.get("path"), path, key)
        for key, split in ((k, _usual(str(k))) for k in held)
        if split in SPLITS and held[key]
    }
    return Description(path.parent, path, names, splits, points, dims)


def _names(held: Mapping[str, Any], path: Path) -> dict[int, str]:
    given = held["names"]
    if isinstance(given, Sequence) and not isinstance(given, str):
        given = dict(enumerate(given))
    if not isinstance(given, Mapping) or not given:
        raise UserError(f"{path}: names is neither a list nor numbers with names")
    found = {}
    for number, name in given.items():
        if not isinstance(number, int) or isinstance(name, list | dict):
            raise UserError(f"{path}: names has {_shown(number)}: {_shown(name)}")
        found[number] = str(name)
    count = held.get("nc")
    if isinstance(count, int) and count != len(found):
        raise UserError(f"{path}: nc is {count}, but there are {len(found)} names")
    lint.check_classes([found[number] for number in sorted(found)], str(path))
    return {number: found[number] for number in sorted(found)}


def _keypoints(
    held: Mapping[str, Any], names: dict[int, str], path: Path
) -> tuple[tuple[str, ...], int]:
    """The names of the keypoints, and the numbers of each."""
    shape = held.get("kpt_shape")
    if shape is None:
        return (), 3
    if not (
        isinstance(shape, list)
        and len(shape) == 2
        and all(type(n) is int and n > 0 for n in shape)
        and shape[1] in (2, 3)
    ):
        raise UserError(f"{path}: kpt_shape is {_shown(shape)}; it is [number, 2 or 3]")
    count, dims = shape
    given = held.get("kpt_names", held.get("keypoint_names"))
    if isinstance(given, Mapping):  # of each class
        lists = list(given.values())
        if any(other != lists[0] for other in lists):
            raise UserError(f"{path}: kpt_names differ between classes; make them one")
        given = lists[0] if lists else None
    if given is None:
        given = [f"point{i}" for i in range(count)]
    if not isinstance(given, list) or len(given) != count:
        raise UserError(f"{path}: kpt_names is no list of {count} names")
    if any(isinstance(name, list | dict) for name in given):
        raise UserError(f"{path}: kpt_names holds something else than names")
    points = tuple(str(name) for name in given)
    return _sided(points, held.get("flip_idx"), path), dims


def _sided(points: tuple[str, ...], flips: Any, path: Path) -> tuple[str, ...]:
    """`points` with names that say left and right of what a mirror exchanges."""
    if flips is None or flips == frames.opposites(points):
        return points
    count = len(points)
    if (
        not isinstance(flips, list)
        or not all(type(n) is int for n in flips)
        or sorted(flips) != [*range(count)]
        or any(flips[flips[i]] != i for i in range(count))
    ):
        raise UserError(
            f"{path}: flip_idx is {_shown(flips)}; it holds the number of each "
            f"keypoint's opposite, or its own, from 0 to {count - 1}"
        )
    return tuple(
        name
        if flips[i] == i
        else f"{'left' if i < flips[i] else 'right'}_{points[min(i, flips[i])]}"
        for i, name in enumerate(points)
    )


def _shown(value: Any) -> str:
    """`value` in a few words: YAML may repeat a part of itself without end."""
    inner = value if isinstance(value, list) else [value]
    if len(inner) > 50 or any(isinstance(x, list | dict) for x in inner):
        return f"a {type(value).__name__}"
    return str(value)[:80]


def _places(given: Any, base: Any, path: Path, key: str) -> list[Path]:
    """The folders and lists of a split. Raises UserError that names what was tried."""
    values = given if isinstance(given, list) else [given]
    if not all(isinstance(value, str) for value in values):
        raise UserError(f"{path}: {key} is {_shown(given)}; name a folder, or a list")
    if base is not None and not isinstance(base, str):
        raise UserError(f"{path}: path is {_shown(base)}; name a folder")
    return [_place(value, base, path, key) for value in values]


def _place(value: str, base: str | None, path: Path, key: str) -> Path:
    """Where `value` is: as it is written, else moved along with the YAML file.

    Files that were made elsewhere have paths of another machine, or paths from another
    folder; their ends are looked for beside the file.
    """
    here = path.parent
    value = value.replace("\\", "/")
    bases = [here]
    if base:
        base = base.replace("\\", "/")
        bases = [here / lint.expanded(base), here]
    tried = [b / lint.expanded(value) for b in bases]
    parts = [part for part in Path(value).parts if part not in ("..", ".", "/")]
    whole = [*Path(base or "").parts, *parts] if base else parts
    tried += [here.joinpath(*whole[i:]) for i in range(len(whole))]
    for one in tried:
        if one.exists():
            return Path(os.path.normpath(one))
    raise MissingFileError(
        f"{path}: {key} is {value!r}, which is neither there nor beside the file; "
        f"looked for {tried[0]}; mend it, or name the split with --split {key}=DIR"
    )
