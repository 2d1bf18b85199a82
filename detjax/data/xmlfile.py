"""XML files from anywhere, without what XML can do to whoever reads it."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from xml.parsers import expat

from detjax import files
from detjax.errors import MissingFileError, UserError

_DEEPEST = 100  # elements in elements; VOC has four


def parse(path: Path) -> ElementTree.Element:
    """The root of the annotation file `path`.

    Raises UserError, whose sentence lacks its subject, where it is none. Declarations
    of types and entities are refused: a few of them expand to gigabytes, or read other
    files.
    """
    try:
        data = files.read_bytes(path)
    except MissingFileError:
        raise MissingFileError("is listed but does not exist") from None
    except UserError as error:
        raise UserError(f"cannot be read as XML: {error}") from None
    tree, parser = ElementTree.TreeBuilder(), expat.ParserCreate()
    depth = 0

    def start(tag, attributes):
        nonlocal depth
        depth += 1
        if depth > _DEEPEST:
            raise UserError(f"has elements in elements, more than {_DEEPEST} deep")
        tree.start(tag, attributes)

    def end(tag):
        nonlocal depth
        depth -= 1
        tree.end(tag)

    def refuse(*_):
        raise UserError("has a <!DOCTYPE ...>, which VOC's files lack: remove it")

    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = tree.data
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, LookupError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"cannot be read as XML: {error}") from None
    return tree.close()
