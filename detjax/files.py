"""Files that are never there by half."""

import contextlib
import os
import pathlib
from collections.abc import Iterator


def write(path: pathlib.Path, text: str) -> None:
    """Makes `text` all that `path` holds; a kill leaves that, or what was there.

    Raises OSError where it cannot be written.
    """
    if path.exists() and path.read_bytes() == text.encode():
        return
    beside = path.with_name(f"{path.name}.tmp")
    with told(path):
        beside.write_text(text)
        beside.replace(path)


@contextlib.contextmanager
def told(path: str | os.PathLike) -> Iterator[None]:
    """Turns what goes wrong with writing `path` into one sentence that names it."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"{path} could not be written ({error.strerror or error}); free some space "
            "there and start the same command again"
        ) from error
