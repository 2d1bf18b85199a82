"""Make a data set from COCO, VOC or label-map files.

    python scripts/make_dataset.py coco --name=mine --images=DIR \\
        --split train=train.json --split val=val.json
    python scripts/make_dataset.py voc --name=mine --root=DIR --split train val
    python scripts/make_dataset.py labelmaps --name=mine --classes=nucleus \\
        --split train=DIR --split val=DIR

It lands in `--out` (datasets/), where a config's `data.name` finds it.
"""

import argparse

from detjax import cli
from detjax.data.prepare import prepare


def arguments(argv: list[str] | None = None) -> dict:
    """The keywords of `prepare`, and `debug`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    formats = parser.add_subparsers(dest="format", required=True)
    coco = formats.add_parser("coco", help="JSON files of instances")
    coco.add_argument("--split", action="append", required=True, metavar="NAME=FILE")
    coco.add_argument(
        "--images",
        action="append",
        required=True,
        metavar="[NAME=]DIR",
        help="one folder, or one for each split",
    )
    voc = formats.add_parser("voc", help="Annotations, JPEGImages and ImageSets")
    voc.add_argument("--root", required=True, metavar="DIR")
    voc.add_argument(
        "--split",
        nargs="+",
        default=["train", "val"],
        metavar="NAME[=LIST]",
        help="lists of ImageSets/Main; * is every annotation file",
    )
    labelmaps = formats.add_parser("labelmaps", help="images/ beside labels/")
    labelmaps.add_argument(
        "--split", action="append", required=True, metavar="NAME=DIR"
    )
    for one in (coco, voc, labelmaps):
        _common(one)
    return _keywords(vars(parser.parse_args(argv)))


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", required=True, help="what to call it")
    parser.add_argument("--out", default="datasets", help="the folder of data sets")
    parser.add_argument("--classes", metavar="A,B,C", help="the classes, in this order")
    parser.add_argument(
        "--on-error",
        choices=("fail", "skip"),
        default="fail",
        help="stop at bad annotations, or drop and list them",
    )
    parser.add_argument("--debug", action="store_true", help="show stack traces")


def _keywords(flags: dict) -> dict:
    keywords = {"data_dir": flags.pop("out"), "splits": _pairs(flags.pop("split"))}
    if flags.get("images"):
        images = flags.pop("images")
        keywords["images"] = images[0] if "=" not in images[0] else _pairs(images)
    classes = flags.pop("classes")
    if classes:
        keywords["classes"] = tuple(name.strip() for name in classes.split(","))
    return keywords | flags


def _pairs(given: list[str]) -> dict[str, str]:
    """{name: value} of NAME=VALUE; a name alone is its own value."""
    split = [item.partition("=") for item in given]
    return {name: value or name for name, _, value in split}


def main() -> None:
    keywords = arguments()
    keywords.pop("debug")
    try:
        prepare(log=print, **keywords)
    except cli.EXPECTED as error:
        cli.fail(error)


if __name__ == "__main__":
    main()
