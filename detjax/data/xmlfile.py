"""Safe parsing of untrusted XML files."""

import xml.etree.ElementTree as ElementTree
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
