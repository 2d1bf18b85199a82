"""Atomic file writes, and reads whose errors name the file.

Only regular files are opened: a FIFO blocks forever, a device never ends.
"""

import contextlib
import difflib
import errno
import fcntl
import itertools
import json
import os
import pathlib
import platform
import stat
import threading
import zipfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from detjax.errors import MissingFileError, UserError, reason

Path = str | os.PathLike
# Advice for write errors other than a full disk.
ADVICE: dict[int | None, str] = {
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "make it writable"),
    **dict.fromkeys(
        (errno.EISDIR, errno.ENOTDIR, errno.EEXIST), "move what is in its place away"
    ),
    errno.ENAMETOOLONG: "choose a shorter name",
}
LOT = 1000  # rows of a JSON list that are made into text at once
_numbers = itertools.count()


def write_text(path: pathlib.Path, text: str) -> None:
    """Replaces the content of `path` by `text` atomically, as UTF-8.

    A process that is killed leaves the old content or the new one. Raises OSError that
    names the path if it cannot be written.
    """
    data = text.encode("utf-8", "surrogateescape")
    with writing(path):
        if path.is_file() and path.read_bytes() == data:
            return
    write_bytes(path, data)


def write_bytes(path: pathlib.Path, data: bytes) -> None:
    """Replaces the content of `path` by `data` atomically; see `write_text`."""
    with replacing(path) as write:
        write(data)


def write_rows(path: pathlib.Path, rows: Iterable[Any]) -> None:
    """Replaces the content of `path` by a JSON list of `rows` atomically.

    The text is that of `json.dumps`; no more than `LOT` rows of it are held at once.
    """
    with replacing(path) as write:
        for piece in json_pieces(rows):
            write(piece.encode())


def json_pieces(rows: Iterable[Any]) -> Iterator[str]:
    """The text of a JSON list of `rows`, piece by piece."""
    rest = iter(rows)
    before = "["
    while lot := list(itertools.islice(rest, LOT)):
        yield before + json.dumps(lot)[1:-1]
        before = ", "
    yield "[]" if before == "[" else "]"


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[Callable[[bytes], Any]]:
    """A function that writes bytes, which replace `path` once the block has ended.

    Where that fails nothing changes. Raises OSError that names the path if it cannot be
    written.
    """
    # A unique temporary name, since others may write the same file; and a short one.
    thread, number = threading.get_ident(), next(_numbers)
    beside = path.with_name(f".{os.getpid()}-{thread}-{number}.tmp")
    with writing(path):
        file = beside.open("wb")

    def write(data: bytes) -> None:
        with writing(path):
            file.write(data)

    try:
        try:
            yield write
        finally:
            with writing(path):
                file.close()
        with writing(path):
            beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def check_name(folder: pathlib.Path) -> None:
    """Raises UserError for a folder name with invalid Unicode or a zero byte."""
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        raise UserError(
            f"{str(folder)!a} is not Unicode; choose another folder"
        ) from None
    if "\0" in str(folder):
        raise UserError(f"{str(folder)!a} has a zero byte; choose another folder")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an OSError while writing `path` into a message that names it."""
    try:
        yield
    except OSError as error:
        advice = ADVICE.get(error.errno, "free some space there")
        raise OSError(
            f"{os.fspath(path)} could not be written ({error.strerror or error}); "
            f"{advice} and start the same command again"
        ) from error


@contextlib.contextmanager
def reading(path: Path, advice: str = "") -> Iterator[None]:
    """Turns any error while reading `path` into a `UserError` that names it.

    Covers missing and unreadable files, and content that the code inside cannot parse.
    `advice` says what to do.
    """
    advice = f"; {advice}" if advice else ""
    try:
        yield
    except UserError as error:
        if os.fspath(path) in str(error):
            raise
        raise UserError(f"{os.fspath(path)}: {error}{advice}") from error
    except FileNotFoundError as error:
        raise MissingFileError(f"{os.fspath(path)} does not exist{advice}") from error
    except OSError as error:
        raise UserError(
            f"{os.fspath(path)} cannot be read: {reason(error)}{advice}"
        ) from error
    except KeyError as error:
        raise UserError(f"{os.fspath(path)} has no {error}{advice}") from error
    except (
        AttributeError,
        EOFError,
        IndexError,
        OverflowError,
        RecursionError,
        TypeError,
        ValueError,
        zipfile.BadZipFile,
    ) as error:
        raise UserError(
            f"{os.fspath(path)} does not hold what it should ({reason(error)}){advice}"
        ) from error


@contextlib.contextmanager
def lock(path: pathlib.Path, what: str, wait: bool = False) -> Iterator[None]:
    """Holds the lock file `path`; the lock is released when the process ends.

    If another process holds it: waits with `wait`, else raises UserError that names the
    process and says that `what` is in progress there.
    """
    with writing(path):
        # Unbuffered: closing a buffer would retry the write that failed.
        file = path.open("ab+", buffering=0)
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            file.seek(0)
            holder = file.read().decode().strip() or "another process"
            raise UserError(
                f"{path.parent} is in use: {what} by {holder} is already under way "
                "there; wait for it, end it, or choose another --workdir"
            ) from None
        except OSError:
            pass  # a file system without locks
        with writing(path):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}\n".encode())
        try:
            yield
        finally:
            file.truncate(0)


def unused(path: pathlib.Path) -> pathlib.Path:
    """`path`, or the first free one of path-2, path-3, ..."""
    others = (path.with_name(f"{path.name}-{i}") for i in itertools.count(2))
    return next(p for p in itertools.chain([path], others) if not p.exists())


def read_bytes(path: Path, most: int = -1) -> bytes:
    """The content of the regular file `path`, or its first `most` bytes.

    Raises MissingFileError if it does not exist, UserError if `path` is a folder, a
    FIFO or a device, or cannot be read.
    """
    with reading(path):
        # Without O_NONBLOCK opening a FIFO blocks until it has a writer.
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        mode = os.fstat(number).st_mode
        if not stat.S_ISREG(mode):
            os.close(number)
            raise UserError(f"{os.fspath(path)} is {kind(mode)}, not a file")
        with open(number, "rb") as file:
            return file.read(most)


def near(path: pathlib.Path, others: Iterable[str] = ()) -> str:
    """What is there in place of `path`, as the end of a sentence.

    That is the nearest name in its folder or of the `others`, or the first of its
    folders that is not there.
    """
    above, name = path.parent, path.name
    while not above.is_dir() and above != above.parent:
        above, name = above.parent, above.name
    try:
        names = sorted(os.listdir(above))[:10_000]
    except OSError:
        names = []
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    close = close or [n for n in names if n.lower() == name.lower()]
    found = [*map(str, map(above.joinpath, close))]
    found = found or difflib.get_close_matches(path.name, list(others), n=1)
    if found:
        return f"; did you mean {found[0]}?"
    return f"; {above} has no {name!r}" if above != path.parent else ""


def kind(mode: int) -> str:
    """The name of the kind of a non-regular file of `mode`."""
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISFIFO(mode):
        return "a FIFO"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"


def read_text(path: Path) -> str:
    """The text of the file `path`: UTF-8, or UTF-16 with a byte-order mark.

    A byte-order mark is dropped. Raises UserError that names the first invalid byte for
    other encodings; see `read_bytes` for the other errors.
    """
    data = read_bytes(path)
    utf16 = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        return data.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{os.fspath(path)} is not UTF-8 text at byte {error.start}; save it as "
            "UTF-8"
        ) from None


def read_json(path: Path, advice: str = "mend it or get it again") -> Any:
    """The parsed content of the JSON file `path`.

    Raises UserError with line and column for invalid JSON; see `read_text`.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise not_json(path, error, advice) from None
    except (RecursionError, ValueError) as error:
        # Deeply nested lists, and numbers of thousands of digits.
        raise UserError(
            f"{os.fspath(path)} cannot be read as JSON ({reason(error)}); {advice}"
        ) from None


def not_json(path: Path, error: json.JSONDecodeError, advice: str) -> UserError:
    """The error for a file that is invalid JSON from some position on."""
    cut = error.pos >= len(error.doc.rstrip()) or "Unterminated" in error.msg
    why = "it ends too early: get it again" if cut else advice
    return UserError(
        f"{os.fspath(path)} is not JSON at line {error.lineno}, column {error.colno} "
        f"({error.msg}); {why}"
    )


def read_object(path: Path, *keys: str, advice: str = "mend it or get it again") -> Any:
    """The JSON object in the file `path`, which must have all of `keys`.

    Raises UserError for any other JSON; see `read_json`.
    """
    held = read_json(path, advice)
    if not isinstance(held, dict):
        raise UserError(
            f"{os.fspath(path)} holds a {type(held).__name__}, not an object; {advice}"
        )
    for key in keys:
        if key not in held:
            raise UserError(f"{os.fspath(path)} has no {key!r}; {advice}")
    return held
