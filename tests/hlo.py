"""What compiled programs say: computations, loops, and what happens in them."""

import re

COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "all-to-all",
    "collective-broadcast",
    "collective-permute",
    "ragged-all-to-all",
    "reduce-scatter",
)
_HEAD = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) .*\{$")
_NAME = re.compile(r"%([\w.\-]+)")
_LOOP = re.compile(r" while\(.*?condition=%([\w.\-]+), body=%([\w.\-]+)")
_COLLECTIVE = re.compile(rf" (?:{'|'.join(COLLECTIVES)})(?:-start)?\(")


def computations(text: str) -> dict[str, list[str]]:
    """The instructions of every computation of a module, by its name."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if not line.startswith(" ") and (head := _HEAD.match(line)):
            lines = found.setdefault(head[1], [])
        elif line.startswith(" "):
            lines.append(line.split(", metadata=")[0])
    return found


def loops(text: str) -> list[str]:
    """The instructions that are loops, in any computation."""
    return [
        x for lines in computations(text).values() for x in lines if _LOOP.search(x)
    ]


def in_loops(text: str) -> list[str]:
    """The instructions of loops' bodies and conditions, and of what these call."""
    parts = computations(text)
    left = [name for line in loops(text) for name in _LOOP.search(line).groups()]
    seen: dict[str, list[str]] = {}
    while left:
        name = left.pop()
        if name in parts and name not in seen:
            seen[name] = parts[name]
            left += [n for line in parts[name] for n in _NAME.findall(line)]
    return [line for lines in seen.values() for line in lines]


def collectives(lines: list[str]) -> list[str]:
    """Those in which devices talk to each other."""
    return [line.strip() for line in lines if _COLLECTIVE.search(line)]
