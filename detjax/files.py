"""Files that are never there by half."""

import pathlib


def write(path: pathlib.Path, text: str) -> None:
    """Makes `text` all that `path` holds; a kill leaves that, or what was there."""
    if path.exists() and path.read_bytes() == text.encode():
        return
    beside = path.with_name(f"{path.name}.tmp")
    beside.write_text(text)
    beside.replace(path)
