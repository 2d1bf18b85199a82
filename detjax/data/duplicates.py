"""Pictures that a data set has twice, by their content."""

import itertools
from collections.abc import Mapping
from typing import NamedTuple

from detjax.data.records import shown
from detjax.data.summary import Summary

_SHOWN = 3


class Twins(NamedTuple):
    """The pictures of one split, or of two, that are the same file."""

    said: str  # what that means
    pairs: list[tuple[str, str]]

    def line(self) -> str:
        """A sentence, with some of the pairs."""
        some = ", ".join(f"{a} is {b}" for a, b in self.pairs[:_SHOWN])
        more = len(self.pairs) - _SHOWN
        more_said = f" and {more} more" if more > 0 else ""
        return shown(f"warning: {self.said}: {some}{more_said}")


def of(summaries: Mapping[str, Summary]) -> list[Twins]:
    """The pictures that splits have twice, and those that two splits have."""
    found = []
    for split, own in summaries.items():
        if own.repeated:
            said = f"split {split!r} has {_count(own.repeated)} more than once"
            found.append(Twins(said, own.repeated))
    for (a, first), (b, second) in itertools.combinations(summaries.items(), 2):
        both = [
            (f"{name} of {b}", f"{first.pictures[digest]} of {a}")
            for digest, name in second.pictures.items()
            if digest in first.pictures
        ]
        if both:
            said = (
                f"splits {a!r} and {b!r} share {_count(both)}, so that what is "
                "measured on one says little about pictures that the other has not "
                "seen; take them out of one"
            )
            found.append(Twins(said, both))
    return found


def _count(pairs: list) -> str:
    return f"{len(pairs)} picture{'s' if len(pairs) > 1 else ''}"
