"""Safe parsing of untrusted XML files."""

import contextlib
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.parsers import expat

from detjax import files
from detjax.errors import MissingFileError, UserError

_DEEPEST = 100  # nesting depth; VOC has four


def parse(path: Path) -> ElementTree.Element:
    """The root of the annotation file `path`.

    Raises UserError, whose message lacks its subject, if it is not XML. DTD and entity
    declarations are refused: they can expand to gigabytes or read other files.
    """
    try:
        data = files.read_bytes(path)
    except MissingFileError:
        raise MissingFileError("is listed but does not exist") from None
    except UserError as error:
        raise UserError(f"cannot be read as XML: {error}") from None
    return element(data)


def element(data: bytes, encoding: str | None = None) -> ElementTree.Element:
    """The element that `data` begin with; see `parse`.

    What follows it is ignored if the `encoding` is given, as for a part of a file.
    """
    tree = ElementTree.TreeBuilder()
    depth = 0

    def start(tag, attributes):
        nonlocal depth
        depth += 1
        tree.start(tag, attributes)

    def end(tag):
        nonlocal depth
        depth -= 1
        tree.end(tag)
        if not depth and encoding is not None:
            raise _Enough

    parser = _parser(start, end, encoding)
    parser.CharacterDataHandler = tree.data
    with contextlib.suppress(_Enough), _invalid():
        parser.Parse(data, True)
    return tree.close()


def scan(
    path: Path,
    start: Callable[[str, dict[str, str], int], None],
    end: Callable[[str], None],
    text: Callable[[str], None],
) -> str:
    """Walks through the XML file `path`, which may be larger than the memory.

    `start` gets an element's name, its attributes and where it begins in the file, in
    bytes; `end` its name; `text` what is between. Returns the file's encoding.
    Raises UserError that names the file.
    """
    encoding = "UTF-8"

    def declared(version, named, standalone):
        nonlocal encoding
        encoding = named or encoding

    parser = _parser(
        lambda tag, attributes: start(tag, attributes, parser.CurrentByteIndex), end
    )
    parser.XmlDeclHandler = declared
    parser.CharacterDataHandler = text
    with files.reading(path), _invalid(), open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            parser.Parse(chunk, False)
        parser.Parse(b"", True)
    return encoding


class _Enough(Exception):
    """The element is complete."""


@contextlib.contextmanager
def _invalid() -> Iterator[None]:
    """Turns errors of expat into a UserError."""
    try:
        yield
    except (expat.ExpatError, LookupError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"cannot be read as XML: {error}") from None


def _parser(
    start: Callable[[str, dict[str, str]], None],
    end: Callable[[str], None],
    encoding: str | None = None,
) -> expat.XMLParserType:
    """A parser that calls `start` and `end`, and refuses what could harm."""
    depth = 0

    def begin(tag, attributes):
        nonlocal depth
        depth += 1
        if depth > _DEEPEST:
            raise UserError(f"has elements in elements, more than {_DEEPEST} deep")
        start(tag, attributes)

    def finish(tag):
        nonlocal depth
        depth -= 1
        end(tag)

    def refuse(*_):
        raise UserError("has a <!DOCTYPE ...>, which annotations lack: remove it")

    parser = expat.ParserCreate(encoding)
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = begin, finish
    parser.StartDoctypeDeclHandler = refuse
    return parser
