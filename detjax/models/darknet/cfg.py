"""Darknet's description of a network: a .cfg file as sections with typed options.

A section begins with [its name]; what follows are lines option=value. Blanks do not
count, and lines that begin with # or ; are comments. The first section, [net],
describes the input and the training, every other one a layer. As in darknet an option
that is given twice has its first value, and a number ends where it stops being one:
"1,000" is 1.

Redmon, Darknet: open source neural networks in C, 2013-2016; src/parser.c.
"""

import dataclasses
import pathlib
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from detjax.errors import UserError

# Other names of sections.
ALIASES = {
    "network": "net",
    "conv": "convolutional",
    "conn": "connected",
    "max": "maxpool",
    "avg": "avgpool",
    "soft": "softmax",
}
# What ends a network, or a branch of it: read by a loss or a decoder.
HEADS = ("yolo", "region", "detection")
LAYERS = (
    "convolutional",
    "connected",
    "local",
    "maxpool",
    "avgpool",
    "route",
    "shortcut",
    "reorg",
    "upsample",
    "crop",
    "dropout",
    "softmax",
    "cost",
    *HEADS,
    "sam",
    "scale_channels",
)
# What may lie between the last weights and what reads them.
WITHOUT_WEIGHTS = ("avgpool", "dropout", "softmax", "cost")
# Of darknet's other trades: sequences, and games.
RECURRENT = ("rnn", "gru", "lstm", "crnn")

_WHOLE = re.compile(r"[+-]?\d+")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclasses.dataclass(frozen=True)
class Section:
    """A section: its kind, where it stands, and its options as text."""

    kind: str
    file: str
    line: int
    options: Mapping[str, str]

    def __contains__(self, name: str) -> bool:
        return name in self.options

    def having(self, **options: Any) -> "Section":
        """The same with other values of `options`."""
        changed = {name: str(value) for name, value in options.items()}
        return dataclasses.replace(self, options={**self.options, **changed})

    def text(self, name: str, default: str = "") -> str:
        return self.options.get(name, default)

    def whole(self, name: str, default: int | None = None) -> int:
        """A whole number. Raises UserError where there is none, and no default."""
        return int(self._number(name, default, _WHOLE, "a whole number"))

    def number(self, name: str, default: float | None = None) -> float:
        """A number. Raises UserError where there is none, and no default."""
        return float(self._number(name, default, _NUMBER, "a number"))

    def flag(self, name: str, default: bool = False) -> bool:
        """Whether a whole number is not 0."""
        return self.whole(name, int(default)) != 0

    def wholes(self, name: str) -> tuple[int, ...]:
        """Whole numbers between commas; none without the option."""
        return tuple(int(x) for x in self._numbers(name, _WHOLE, "whole numbers"))

    def numbers(self, name: str) -> tuple[float, ...]:
        """Numbers between commas; none without the option."""
        return tuple(float(x) for x in self._numbers(name, _NUMBER, "numbers"))

    def one_of(self, name: str, known: Mapping[str, Any], default: str) -> Any:
        """The value of `known` that the option names. Raises UserError for others."""
        value = self.text(name, default)
        if value not in known:
            self.refuse(f"{name}={value} is not one of {', '.join(known)}")
        return known[value]

    def refuse(self, why: str) -> NoReturn:
        """Raises a UserError that names the section and its line."""
        raise UserError(f"{self.file}, line {self.line}, [{self.kind}]: {why}")

    def _number(
        self, name: str, default: float | None, form: re.Pattern, what: str
    ) -> str | float:
        if name not in self.options:
            if default is None:
                self.refuse(f"there is no {name}=; give {what}")
            return default
        found = form.match(self.options[name])
        if not found:
            self.refuse(f"{name}={self.options[name]} is not {what}")
        return found[0]

    def _numbers(self, name: str, form: re.Pattern, what: str) -> list[str]:
        parts = [part for part in self.text(name).split(",") if part]
        found = [form.match(part) for part in parts]
        if not all(found):
            self.refuse(f"{name}={self.options[name]} are not {what}")
        return [match[0] for match in found]


@dataclasses.dataclass(frozen=True)
class Cfg:
    """A network: the section [net], and one for each layer."""

    net: Section
    layers: tuple[Section, ...]

    def with_net(self, **options: Any) -> "Cfg":
        """The same with other options of [net]."""
        return dataclasses.replace(self, net=self.net.having(**options))

    @property
    def heads(self) -> tuple[int, ...]:
        """Indices of the layers that find objects; none of a classifier."""
        return tuple(i for i, one in enumerate(self.layers) if one.kind in HEADS)

    @property
    def classes(self) -> int:
        """The classes that are told apart. Raises UserError where nothing is."""
        if self.heads:
            return self.layers[self.heads[-1]].whole("classes", 20)
        last = self.layers[self.before(len(self.layers))]
        return last.whole("filters" if last.kind == "convolutional" else "output", 1)

    def with_classes(self, count: int) -> "Cfg":
        """The same for `count` classes: as wide before each head as that makes it.

        A head of other classes than a file's, or of another file's anchors, is what its
        users write by hand: classes= of the head and filters= of the layer before it.
        """
        layers = list(self.layers)
        for head in self.heads or (len(layers),):
            at = self.before(head)
            outputs = count
            if self.heads:
                layers[head] = layers[head].having(classes=count)
                outputs = _outputs(layers[head], count)
            if layers[at].kind == "convolutional":
                layers[at] = layers[at].having(filters=outputs)
            else:
                layers[at] = layers[at].having(output=outputs)
        return dataclasses.replace(self, layers=tuple(layers))

    def before(self, index: int) -> int:
        """The index of the last layer before `index` that has weights."""
        at = index - 1
        while at >= 0 and self.layers[at].kind in WITHOUT_WEIGHTS:
            at -= 1
        if at < 0 or self.layers[at].kind not in ("convolutional", "connected"):
            self.layers[min(index, len(self.layers) - 1)].refuse(
                "no [convolutional] or [connected] section stands before it"
            )
        return at

    def __hash__(self) -> int:
        return hash(self.written())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cfg) and self.written() == other.written()

    def written(self) -> str:
        """The text of a .cfg file of the same sections."""
        return "\n".join(
            f"[{section.kind}]\n"
            + "".join(f"{name}={value}\n" for name, value in section.options.items())
            for section in (self.net, *self.layers)
        )


def read(path: str | pathlib.Path) -> Cfg:
    """The network of a .cfg file. Raises UserError if it is none."""
    return parse(text(path), str(path))


def text(path: str | pathlib.Path) -> str:
    """The text of a .cfg file. Raises UserError if it cannot be read."""
    path = pathlib.Path(path)
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None


def parse(text: str, file: str = "the cfg") -> Cfg:
    """The network that `text` describes; `file` is its name in messages.

    Raises UserError, with the line, for sections that are not known and lines that are
    neither a section nor an option.
    """
    sections: list[Section] = []
    options: dict[str, str] = {}
    for number, raw in enumerate(text.splitlines(), start=1):
        line = "".join(raw.split())
        if not line or line[0] in "#;":
            continue
        if line[0] == "[":
            options = {}
            sections.append(Section(_kind(line, file, number), file, number, options))
            continue
        name, equals, value = line.partition("=")
        if not equals or not sections:
            expected = "option=value" if sections else "[net]"
            raise UserError(f"{file}, line {number}: {raw.strip()!r} is no {expected}")
        options.setdefault(name, value)
    if not sections or sections[0].kind != "net":
        raise UserError(f"{file} does not begin with [net]; it is no cfg of darknet")
    for section in sections[1:]:
        _check(section)
    if len(sections) == 1:
        raise UserError(f"{file} has no layers")
    return Cfg(sections[0], tuple(sections[1:]))


def _outputs(head: Section, classes: int) -> int:
    """The numbers that a head reads: of each cell, or of the whole map."""
    count = head.whole("num", 1)
    if head.kind == "detection":
        return head.whole("side", 7) ** 2 * (classes + 5 * count)
    return (len(head.wholes("mask")) or count) * (5 + classes)


def _kind(line: str, file: str, number: int) -> str:
    name = line[1:].partition("]")[0]
    kind = ALIASES.get(name, name)
    if kind in RECURRENT:
        raise UserError(
            f"{file}, line {number}: [{name}] is of networks for sequences, which are "
            "not built here; of images there are detectors and classifiers"
        )
    if kind not in (*LAYERS, "net"):
        raise UserError(
            f"{file}, line {number}: [{name}] is not a section that is known; there "
            f"are {', '.join(LAYERS)}"
        )
    return kind


def _check(section: Section) -> None:
    if section.kind == "net":
        section.refuse("there is one [net] only, the first section")
