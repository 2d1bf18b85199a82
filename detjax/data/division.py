"""A pool of images, divided into splits at random but alike.

Iterative stratification after Sechidis, Tsoumakas & Vlahavas, "On the Stratification of
Multi-label Data", ECML PKDD 2011, algorithm 1: the rarest class first, each of its
images to the split that lacks most of it; unlike there, splits have the exact sizes.
"""

import collections
import dataclasses
import hashlib
import heapq
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from detjax.data import crew, writer
from detjax.data.records import Catalogue
from detjax.errors import UserError

_BACKGROUND = "nothing"


def check(shares: Mapping[str, float]) -> None:
    """Raises UserError for shares that are no parts of a whole."""
    given = ",".join(f"{split}:{share:g}" for split, share in shares.items())
    advice = "give parts of 1, as train:0.8,val:0.2; what they leave is not used"
    if not shares or min(shares.values()) <= 0:
        raise UserError(f"--split-by={given} has a split without a part; {advice}")
    if sum(shares.values()) > 1 + 1e-6:
        raise UserError(
            f"the parts of --split-by={given} add up to more than 1; {advice}"
        )


def balanced(catalogue: Catalogue, seed: int = 0) -> Catalogue:
    """The images of a pool of which every class has as many as the rarest one.

    Which they are depends on names and seed only. Raises UserError where an image has
    several classes, or where the files do not tell them before they are read.
    """
    kinds: dict[Any, list[int]] = collections.defaultdict(list)
    for i, labels in enumerate(_labels(catalogue)):
        if len(set(labels)) != 1:
            name = catalogue.name_of(catalogue.entries[i])
            raise UserError(
                f"--balanced needs one class an image, and {name} has "
                f"{len(set(labels))}; leave it out (data.class_weights and "
                "data.repeat_threshold make up for rare classes too)"
            )
        kinds[next(iter(labels))].append(i)
    least = min((len(own) for own in kinds.values()), default=0)

    def rank(i: int) -> bytes:
        return _hash(f"{seed}:{catalogue.name_of(catalogue.entries[i])}")

    kept = sorted(i for own in kinds.values() for i in sorted(own, key=rank)[:least])
    return dataclasses.replace(catalogue, entries=Part(catalogue.entries, kept))


def divided(
    catalogue: Catalogue, shares: Mapping[str, float], seed: int = 0
) -> dict[str, Catalogue]:
    """The splits of a pool: `shares` are their parts of it.

    Depends on the names of the images, their classes, the shares and the seed only.
    Images keep their ids and their order. Problems of the annotation file stay with the
    first split. Raises UserError if a split would be empty.
    """
    check(shares)
    entries = catalogue.entries
    if not entries:
        raise UserError("there is no image to divide; check the paths")
    names = [catalogue.name_of(entry) for entry in entries]
    labels = _labels(catalogue)
    place = stratified(names, labels, list(shares.values()), seed)
    found = {}
    for i, split in enumerate(shares):
        own = [k for k, chosen in enumerate(place) if chosen == i]
        if not own:
            raise UserError(
                f"split {split!r} would be empty: there are {len(names)} images in all "
                f"and its part is {shares[split]:g}; give it a larger one"
            )
        found[split] = dataclasses.replace(
            catalogue,
            split=split,
            entries=Part(entries, own),
            problems=[] if i else catalogue.problems,
            notes=[] if i else catalogue.notes,
        )
    return found


def stratified(
    names: Sequence[str],
    labels: Sequence[Collection[Any]],
    shares: Sequence[float],
    seed: int = 0,
) -> list[int]:
    """The split, from 0, of each of n images of `names` and of classes `labels`.

    -1 is none, where the shares add up to less than 1.
    """
    rest = 1 - sum(shares)
    parts = [*shares, rest] if rest > 1e-6 else [*shares]
    order = sorted(range(len(names)), key=lambda i: _hash(f"{seed}:{names[i]}"))
    kinds = [set(found) or {_BACKGROUND} for found in labels]
    images = collections.defaultdict(list)
    for i in order:
        for kind in sorted(kinds[i], key=str):
            images[kind].append(i)
    left = {kind: len(own) for kind, own in images.items()}
    wanted = {kind: [part * n for part in parts] for kind, n in left.items()}
    room = _sizes(parts, len(names))
    place = [-1] * len(names)
    # Counts that have fallen since are put back with the present one.
    rarest = [(n, str(kind), kind) for kind, n in left.items()]
    heapq.heapify(rarest)
    while rarest:
        count, text, kind = heapq.heappop(rarest)
        if count != left[kind]:
            if left[kind]:
                heapq.heappush(rarest, (left[kind], text, kind))
            continue
        for i in images[kind]:
            if place[i] >= 0:
                continue
            lack = wanted[kind]
            free = [s for s in range(len(parts)) if room[s]]
            best = max(free, key=lambda s: (lack[s], room[s], -s))
            place[i] = best
            room[best] -= 1
            for other in kinds[i]:
                wanted[other][best] -= 1
                left[other] -= 1
    return [chosen if chosen < len(shares) else -1 for chosen in place]


def _sizes(parts: Sequence[float], count: int) -> list[int]:
    """The nearest whole numbers to `parts` of `count` that add up to it."""
    exact = [part * count for part in parts]
    sizes = [int(x + 1e-6) for x in exact]
    most = sorted(range(len(parts)), key=lambda s: (sizes[s] - exact[s], s))
    for s in most[: count - sum(sizes)]:
        sizes[s] += 1
    return sizes


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def _labels(catalogue: Catalogue) -> list[Collection[Any]]:
    """The classes in each image, whose annotations many processes read if many."""
    entries, labels_of = catalogue.entries, catalogue.labels_of
    if len(entries) < writer.MANY:
        return [labels_of(entry) for entry in entries]
    return list(crew.parallel(labels_of, entries))


class Part(Sequence[Any]):
    """Some of a sequence, by their places; items are created on access."""

    def __init__(self, whole: Sequence[Any], places: Sequence[int]):
        self._whole, self._places = whole, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self._whole[place] for place in self._places[index]]
        return self._whole[self._places[index]]
