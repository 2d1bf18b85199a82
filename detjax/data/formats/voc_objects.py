"""The objects of an annotation file of VOC."""

from xml.etree.ElementTree import Element

from detjax.data import lint
from detjax.data.records import Annotation, Problem, Record


def annotation(
    thing: Element,
    number: int,
    record: Record,
    file: str,
    classes: tuple[str, ...],
) -> Annotation | Problem:
    name = text_of(thing, "name")
    if name not in classes:
        detail = lint.unknown_class(name, classes)
        return lint.object_problem(number, record, file, "unknown category", detail)
    corners = [text_of(thing, f"bndbox/{c}") for c in ("xmin", "ymin", "xmax", "ymax")]
    try:
        x1, y1, x2, y2 = map(float, corners)
    except ValueError:
        detail = f"has box {corners}: not four numbers"
        return lint.object_problem(number, record, file, "malformed box", detail)
    if x2 <= x1 or y2 <= y1:
        fault = lint.flat((x1, y1, x2, y2))
        return lint.object_problem(number, record, file, *fault)
    box = (x1 - 1, y1 - 1, x2, y2)
    area = (x2 - x1 + 1) * (y2 - y1 + 1)
    difficult = text_of(thing, "difficult") == "1"
    number = lint.object_id(int(record.id), number)
    return Annotation(number, box, classes.index(name), area, difficult=difficult)


def text_of(element: Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def integer(text: str) -> int:
    """The number in `text`, which may be written as 64.0; 0 where there is none."""
    try:
        number = float(text)
    except ValueError:
        return 0
    return int(number) if number.is_integer() and 0 < number < 1 << 31 else 0
