"""The pictures of folders, by the endings of their names."""

import os
from pathlib import Path

from detjax import files

SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".png",
    ".bmp",
    ".tif",
    ".tiff",
    ".webp",
    ".gif",
    ".avif",
)


def is_picture(name: str) -> bool:
    """Whether a file's name is a picture's; names that begin with a dot are not."""
    bare = os.path.basename(name)
    return os.path.splitext(bare)[1].lower() in SUFFIXES and bare[0] != "."


def inside(folder: Path) -> list[str]:
    """The names of the pictures in `folder`, sorted."""
    with files.reading(folder):
        return sorted(filter(is_picture, os.listdir(folder)))


def below(folder: Path, endings: tuple[str, ...] = SUFFIXES) -> list[str]:
    """The names below `folder`, with "/", of files with such endings, sorted.

    Hidden files and folders, resource forks of macOS among them, are left out, and
    links to folders are followed.
    """
    found: list[str] = []
    seen: set[tuple[int, int]] = set()

    def failed(error: OSError) -> None:
        raise error

    with files.reading(folder):
        for at, folders, names in os.walk(folder, onerror=failed, followlinks=True):
            place = os.stat(at)
            if (place.st_dev, place.st_ino) in seen:  # a link to a folder above
                folders.clear()
                continue
            seen.add((place.st_dev, place.st_ino))
            folders[:] = [name for name in folders if name[0] != "."]
            inner = os.path.relpath(at, folder)
            found += (
                name if inner == "." else f"{inner}/{name}"
                for name in names
                if name[0] != "." and os.path.splitext(name)[1].lower() in endings
            )
    return sorted(found)
