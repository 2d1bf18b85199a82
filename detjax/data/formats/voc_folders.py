"""Where VOC's folders keep annotations and images."""

import os
from pathlib import Path

from detjax.data import pictures
from detjax.data.formats import places
from detjax.errors import MissingFileError


def annotations(root: Path) -> Path:
    """The folder of the XML files of `root`. Raises MissingFileError."""
    if not root.is_dir():
        raise places.no_folder(root, "VOC's Annotations")
    for folder in (root / "Annotations", root / "annotations"):
        if folder.is_dir():
            return folder
    if any(name.endswith(".xml") for name in os.listdir(root)):
        return root
    raise MissingFileError(
        f"{root} has no folder Annotations and no XML file; give the root of VOC"
        + places.sniff.advice(root, "voc")
    )


def images(root: Path, named: str | Path | None) -> Path:
    """The folder of the images. Raises MissingFileError."""
    if named is not None:
        return places.folder(places.joined(root, named), "the images", "voc")
    for name in ("JPEGImages", "images", "Images"):
        if (root / name).is_dir():
            return root / name
    beside = annotations(root)
    if any(map(pictures.is_picture, os.listdir(beside))):
        return beside
    raise MissingFileError(
        f"no folder {root / 'JPEGImages'}, nor images, nor pictures beside the XML "
        "files; name the folder of the images with --images"
    )
