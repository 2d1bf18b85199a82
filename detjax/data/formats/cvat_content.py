"""What CVAT's XML file holds, and where in the file each image is."""

import dataclasses
import itertools
from pathlib import Path
from typing import Any, NamedTuple

from detjax.data.formats import sniff, xmlfile
from detjax.data.formats.cvat_shapes import SHAPES
from detjax.errors import UserError


class Entry(NamedTuple):
    """An image of the file: where it is there, and the labels of its shapes."""

    number: int
    name: str
    subset: str
    start: int  # bytes from the file's begin
    stop: int
    labels: tuple[str, ...] = ()


@dataclasses.dataclass
class Content:
    """What a file holds."""

    path: Path
    encoding: str = "UTF-8"
    entries: list[Entry] = dataclasses.field(default_factory=list)
    labels: list[str] = dataclasses.field(default_factory=list)
    points: dict[str, list[str]] = dataclasses.field(default_factory=dict)


def read(path: Path) -> Content:
    """The images and labels of an XML file, by one walk through it."""
    found = Content(path)
    above: list[str] = []
    label: dict[str, str] = {}
    parents: list[tuple[str, str]] = []
    image: dict[str, Any] = {}
    used: dict[str, None] = {}
    starts: list[int] = []

    def start(tag: str, attributes: dict[str, str], at: int) -> None:
        if not above and tag != "annotations":
            advice = sniff.advice(path, "cvat")
            raise UserError(f"{path} is not CVAT's XML: it begins with <{tag}>{advice}")
        if tag == "track":
            raise UserError(
                f"{path} is of a video: export the task as 'CVAT for images 1.1'"
            )
        if tag == "label":
            label.clear()
        if len(above) == 1:
            starts.append(at)
            if tag == "image":
                image.update(attributes, at=at, labels={})
        elif len(above) == 2 and above[-1] == "image" and tag in SHAPES:
            name = attributes.get("label", "")
            image["labels"][name] = used[name] = None
        above.append(tag)

    def end(tag: str) -> None:
        above.pop()
        if tag == "label" and "labels" in above and label.get("name"):
            parents.append((label["name"].strip(), label.get("parent", "").strip()))
        if tag == "image" and len(above) == 1:
            labels = tuple(sorted(image.pop("labels")))
            found.entries.append(
                Entry(
                    len(found.entries) + 1,
                    image.get("name", ""),
                    image.get("subset", ""),
                    image["at"],
                    0,
                    labels,
                )
            )
            image.clear()

    def text(said: str) -> None:
        if above and above[-1] in ("name", "parent") and "label" in above[-2:]:
            label[above[-1]] = label.get(above[-1], "") + said

    found.encoding = xmlfile.scan(path, start, end, text)
    stops = dict(itertools.pairwise([*starts, path.stat().st_size]))
    found.entries = [e._replace(stop=stops[e.start]) for e in found.entries]
    declared = dict.fromkeys(name for name, parent in parents if not parent)
    # Labels of files without a head are those of their shapes.
    found.labels = list(declared) or sorted(name for name in used if name)
    for name, parent in parents:
        if parent and name not in found.points.setdefault(parent, []):
            found.points[parent].append(name)
    if not found.entries:
        raise UserError(f"{path} has no image")
    return found
