"""Make a data set from COCO, VOC or label-map files, or from a folder a class.

    python scripts/make_dataset.py coco --name=mine --images=DIR \\
        --split train=train.json --split val=val.json
    python scripts/make_dataset.py voc --name=mine --root=DIR --split train val
    python scripts/make_dataset.py labelmaps --name=mine --classes=nucleus \\
        --split train=DIR --split val=DIR
    python scripts/make_dataset.py folders --name=mine --root=DIR \\
        --split train=80 --split val=20

It is written to `--out` (datasets/), where a config's `data.name` refers to it. Boxes
and masks are taken to be in the pixels of upright pictures, as labelling tools show
them: images that EXIF rotates are stored upright.
"""

import argparse

from detjax import cli
from detjax.data.prepare import FORMATS, prepare
from detjax.errors import UserError
from detjax.tasks import TASKS


def arguments(argv: list[str] | None = None) -> dict:
    """The flags as they are given."""
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
    folders = formats.add_parser("folders", help="a folder of pictures a class")
    folders.add_argument("--root", metavar="DIR", help="the folder of the folders")
    folders.add_argument(
        "--split",
        action="append",
        required=True,
        metavar="NAME=PERCENT|DIR",
        help="a part of each class in --root, or a folder of folders of its own",
    )
    for one in (coco, voc):
        one.add_argument(
            "--allow-outside",
            action="store_true",
            help="read images and annotations that the files name outside the folder",
        )
    for one in (coco, voc, labelmaps, folders):
        _common(one)
    return vars(parser.parse_args(argv))


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


def keywords(flags: dict) -> dict:
    """The keywords of `prepare`. Raises UserError for splits that repeat."""
    flags = {name: value for name, value in flags.items() if name != "debug"}
    splits: dict = _pairs(flags.pop("split"))
    if flags["format"] == "folders" and flags["root"] is not None:
        splits = {k: int(v) if v.isdecimal() else v for k, v in splits.items()}
    made = {"data_dir": flags.pop("out"), "splits": splits}
    if flags.get("images"):
        images = flags.pop("images")
        split, found, _ = images[0].partition("=")
        one = len(images) == 1 and not (found and split in made["splits"])
        made["images"] = images[0] if one else _pairs(images)
    classes = flags.pop("classes")
    if classes:
        made["classes"] = tuple(name.strip() for name in classes.split(","))
    return made | flags


def _pairs(given: list[str]) -> dict[str, str]:
    """{name: value} of NAME=VALUE; a name alone is its own value."""
    made: dict[str, str] = {}
    for item in given:
        name, _, value = item.partition("=")
        if name in made:
            raise UserError(f"{name!r} is named twice, as {made[name]!r} and {value!r}")
        made[name] = value or name
    return made


def main() -> None:
    flags = arguments()
    cli.tolerate_odd_streams()
    with cli.reported():
        task = TASKS[FORMATS[flags["format"]].TASK]
        prepare(task=task, log=print, **keywords(flags))


if __name__ == "__main__":
    main()
