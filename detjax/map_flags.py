"""The flags of make_dataset.py for label maps."""

import argparse
from typing import Any

from detjax.errors import UserError

# What --from may be, beside the formats of objects.
SOURCES = ("files", "panoptic", "instances")
# What any data set has, whatever its files are.
_ALL = ("name", "data_dir", "split_by", "split_seed", "balanced", "on_error")


def add(parser: argparse.ArgumentParser) -> None:
    """The flags of label maps."""
    parser.add_argument(
        "--from",
        dest="source",
        default="files",
        metavar="files|panoptic|instances|FORMAT",
        help="label maps (the default), COCO's panoptic files, or objects of a format "
        "of this command; of instances the format is guessed",
    )
    parser.add_argument(
        "--layout",
        choices=("folders", "voc", "cityscapes", "ade20k"),
        help="where files lie and which classes there are (default: as it looks)",
    )
    parser.add_argument(
        "--labels",
        metavar="DIR",
        help="the folder of the label maps (default: labels/, masks/ and the like)",
    )
    parser.add_argument(
        "--values", metavar="I,J,K", help="the number of each of --classes in the maps"
    )
    parser.add_argument(
        "--table",
        metavar="FILE.csv",
        help="the classes, in columns name,r,g,b or name,value",
    )
    parser.add_argument(
        "--ignore", metavar="I,J", help="numbers that are no class (default: 255)"
    )
    parser.add_argument(
        "--merge",
        choices=("supercategories",),
        help="one class for all categories of a super-category (panoptic)",
    )
    parser.add_argument(
        "--objects",
        choices=("values", "components"),
        help="of labelmaps: whether every value of a map is an object, or every part",
    )


def add_numbers(parser: argparse.ArgumentParser) -> None:
    """The flags of maps of numbers."""
    parser.add_argument(
        "--labels", metavar="DIR", help="the folder of the maps (default: depth/)"
    )
    parser.add_argument(
        "--unit",
        type=float,
        metavar="X",
        help="what a number of 1 stands for: 0.001 makes metres of millimetres",
    )
    parser.add_argument(
        "--unknown",
        type=float,
        metavar="X",
        help="the number of pixels that have none (default: 0)",
    )
    parser.add_argument(
        "--quantity", metavar="NAME", help="what the numbers are (default: depth)"
    )


def sourced(
    source: str, held: dict[str, Any], formats: tuple[str, ...]
) -> dict[str, Any]:
    """The keywords `held` of `prepare`, for what label maps are made of.

    `formats` are those of objects. Raises UserError for another source.
    """
    if source == "files":
        return held
    if source == "panoptic":
        return held | {"format": "panoptic"}
    if source not in (*SOURCES, *formats):
        raise UserError(f"--from={source} is none of {', '.join((*SOURCES, *formats))}")
    common = {key: held[key] for key in _ALL if key in held}
    own = {k: v for k, v in held.items() if k not in (*_ALL, "format")}
    named = {} if source == "instances" else {"format": source}
    return common | {"format": "instances", "source": named | own}


def numbers(name: str, text: str) -> tuple[int, ...]:
    """Whole numbers, separated by commas."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UserError(
            f"--{name}={text} is not a list of whole numbers, as --{name}=0,255"
        ) from None
