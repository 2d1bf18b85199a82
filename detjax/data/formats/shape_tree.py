"""Synthetic shapes whose classes are a tree's, some of them without any box.

Leaves are shapes and have a class above them. Of those that are `labelled` the split
train has pictures of one object each, and nothing but its class is annotated: a crowd
that fills the picture. All others are annotated as those of `shapes`, and so is val.

The setting of YOLO9000 (Redmon and Farhadi 2017, section 4) in small.
"""

import functools
from typing import Annotated, Any

from detjax import settings
from detjax.data.formats import shapes
from detjax.data.records import Annotation, Catalogue, Dataset, Reading, Record, collect
from detjax.errors import UserError
from detjax.settings import Count, NotEmpty, Seed

TASK = shapes.TASK
POOL = None

# Each class, and the number of the one above it.
TREE = """\
round -1
angular -1
spiked -1
circle 0
ellipse 0
triangle 1
rectangle 1
hexagon 1
star 2
cross 2
"""
CLASSES = tuple(line.split()[0] for line in TREE.splitlines())
LEAVES = CLASSES[3:]
LABELLED = ("ellipse", "hexagon", "cross")
# Increment on any change of the images.
EDITION = 1


def record(
    i: int, split: str, size: int, seed: int, labelled: tuple[str, ...]
) -> Record:
    """Picture number `i` of a split, of `size` x `size`."""
    rng = shapes.stream(split, seed, i)
    boxed = tuple(kind for kind in LEAVES if kind not in labelled)
    alone = split == "train" and rng.uniform() < len(labelled) / len(LEAVES)
    if split != "train":
        boxed = LEAVES
    kinds = labelled if alone else boxed
    most = 1 if alone else shapes.MAX_OBJECTS
    image, owner, found, _ = shapes.picture(rng, size, kinds, most)
    labels = [CLASSES.index(kinds[label]) for label in found]
    name = f"{split}_{i:06d}.png"
    made = Record(i + 1, name, size, size, image=shapes.encoded(image))
    made.truth = shapes.annotations(i, owner, labels)
    if alone:
        box = 0.0, 0.0, float(size), float(size)
        made.truth = [
            Annotation((i + 1) * 100 + 1, box, labels[0], size * size, crowd=True)
        ]
    return made


def read_entry(i: int, **which: Any) -> Reading:
    """Picture number `i`, as a catalogue has it."""
    return Reading(record(i, **which), [])


def catalogues(
    *,
    num_train: Count = 2000,
    num_val: Count = 200,
    size: shapes.Side = 128,
    seed: Seed = 0,
    labelled: Annotated[tuple[str, ...], NotEmpty()] = LABELLED,
) -> dict[str, Catalogue]:
    """The splits train and val of drawn shapes.

    num_train, num_val: images of each.
    size: their side in pixels.
    seed: another one draws others.
    labelled: leaves of the tree that train has labels of, and no boxes.

    Raises UserError for invalid numbers, and where no leaf has boxes.
    """
    given = {"num_train": num_train, "num_val": num_val, "size": size, "seed": seed}
    settings.check_all("shape_tree", shapes.catalogues, given)
    labelled = tuple(labelled)
    if not set(labelled) < set(LEAVES):
        raise UserError(
            f"labelled={labelled} must be some, and not all, of {', '.join(LEAVES)}"
        )
    which: dict[str, Any] = {"size": size, "seed": seed, "labelled": labelled}
    return {
        split: Catalogue(
            split,
            CLASSES,
            range(num),
            functools.partial(read_entry, split=split, **which),
        )
        for split, num in (("train", num_train), ("val", num_val))
    }


def read_splits(**arguments: Any) -> dict[str, Dataset]:
    """The splits of `catalogues`, in memory."""
    return {s: collect(c) for s, c in catalogues(**arguments).items()}


def digests(
    *, labelled: tuple[str, ...] = LABELLED, **arguments: Any
) -> dict[str, str]:
    """A text that identifies each split of `read_splits`."""
    return {
        split: f"{text}; {', '.join(labelled)} labelled, edition {EDITION}"
        for split, text in shapes.digests(**arguments).items()
    }
