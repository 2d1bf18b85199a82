"""Make a data set from annotated pictures, or export one.

    make_dataset.py yolo --name=mine --root=DIR_OR_DATA.YAML
    make_dataset.py labelme --name=mine --root=DIR --split-by=train:0.8,val:0.2
    make_dataset.py cvat --name=mine --root=annotations.xml --images=DIR \\
        --split-by=train:0.8,val:0.2
    make_dataset.py coco --name=mine --images=DIR --split train=train.json val=val.json
    make_dataset.py voc --name=mine --root=DIR --split train val
    make_dataset.py objectmasks --name=mine --classes=nucleus --root=DIR \\
        --split-by=train:0.8,val:0.2
    make_dataset.py dota --name=mine --root=DIR --split train=train val=val
    make_dataset.py labelmaps --name=mine --classes=nucleus --split train=DIR val=DIR
    make_dataset.py folders --name=mine --root=DIR --split-by=train:0.8,val:0.2
    make_dataset.py csv --name=mine --root=labels.csv --split-by=train:0.8,val:0.2
    make_dataset.py semantic --name=mine --root=DIR --classes=background,cat \\
        --split-by=train:0.8,val:0.2
    make_dataset.py semantic --from=panoptic --name=mine --images=DIR \\
        --split train=panoptic.json
    make_dataset.py depth --name=mine --root=DIR --unit=0.001 \\
        --split-by=train:0.8,val:0.2
    make_dataset.py semantic --from=instances --name=mine --root=DIR_OF_OBJECTS
    make_dataset.py export --name=mine --to=coco --out=DIR

The flags mean the same for every format. --root is the folder of everything, and what
--split and --images name lies below it. --split says what each split is, --split-by
divides all images instead: at random, always alike, with the same classes in each.

The data set is written to --out (datasets/), where a config's data.name refers to it.
Boxes and masks are taken to be in the pixels of upright pictures, as labelling tools
show them: images that EXIF rotates are stored upright.
"""

import argparse
from collections.abc import Sequence
from typing import Any, NamedTuple

from detjax import cli, map_flags
from detjax.errors import UserError

_NAMED = "what each split is, repeated or several at once"


class _Format(NamedTuple):
    """The flags of a format beside those that all have."""

    help: str
    split: str  # what a split is
    root: str = "the folder of everything; other paths are below it"
    needs_root: bool = False
    images: str = ""  # "" where the format has no such flag
    objects: bool = False
    columns: bool = False
    outside: bool = True
    maps: bool = False
    numbers: bool = False


FORMATS = {
    "coco": _Format(
        "JSON files of instances",
        "NAME=FILE.json",
        images="the folder of the images, or NAME=DIR for each split (default: images/ "
        "beside the JSON file)",
    ),
    "yolo": _Format(
        "text files of YOLO: boxes, polygons, poses; with or without data.yaml",
        "NAME[=DIR|LIST.txt]",
        root="data.yaml, or the folder of images/ and labels/",
        needs_root=True,
    ),
    "voc": _Format(
        "XML files of Pascal VOC, as LabelImg writes them",
        "NAME[=LIST]",
        root="the folder of Annotations, JPEGImages and ImageSets, or of XML files",
        needs_root=True,
        images="the folder of the images (default: JPEGImages/, images/, or beside)",
    ),
    "labelme": _Format(
        "JSON files of LabelMe, one an image",
        "NAME=DIR",
        images="the folder of the images (default: where the files say)",
    ),
    "cvat": _Format(
        "XML of CVAT, exported as 'CVAT for images 1.1'",
        "NAME[=FILE.xml|SUBSET]",
        root="the XML file, or the folder of annotations.xml",
        images="the folder of the images (default: images/ beside the file)",
    ),
    "objectmasks": _Format(
        "one mask file an object: images/ and masks/", "NAME=DIR", outside=False
    ),
    "labelmaps": _Format(
        "images/ beside labels/: a pixel's value is the number of its object",
        "NAME=DIR",
        objects=True,
        outside=False,
    ),
    "dota": _Format(
        "text files of DOTA: corners of boxes at an angle; images/ and labelTxt/",
        "NAME=DIR",
        outside=False,
    ),
    "folders": _Format(
        "classification: a folder of pictures a class",
        "NAME=DIR|PERCENT",
        root="the folder of the folders",
        outside=False,
    ),
    "csv": _Format(
        "classification: CSV files of pictures and labels",
        "NAME[=FILE.csv|VALUE]",
        root="the CSV file, or the folder of several",
        images="the folder of the images (default: that of the file)",
        columns=True,
    ),
    "semantic": _Format(
        "segmentation: images beside PNGs whose pixels name classes, as of VOC, "
        "Cityscapes, ADE20K and COCO's panoptic files, or drawn from annotated objects",
        "NAME[=DIR|LIST|FILE]",
        images="the folder of the images (default: images/, JPEGImages/ and the like)",
        outside=False,
        maps=True,
    ),
    "depth": _Format(
        "a number for each pixel: images beside PNGs, TIFFs or .npy files of depth",
        "NAME[=DIR]",
        images="the folder of the images (default: images/, JPEGImages/ and the like)",
        outside=False,
        numbers=True,
    ),
}
# Those of objects, of which label maps can be drawn.
OBJECTS = tuple(n for n in FORMATS if n not in ("folders", "csv", "semantic", "depth"))


def arguments(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """The flags as they are given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    formats = parser.add_subparsers(dest="format", required=True, metavar="FORMAT")
    for name, one in FORMATS.items():
        _add(formats.add_parser(name, help=one.help, description=one.help), one)
    _add_export(formats.add_parser("export", help="write a data set as files again"))
    return vars(parser.parse_args(argv))


def _add(parser: argparse.ArgumentParser, one: _Format) -> None:
    """The flags of a format, in the same order for all."""
    parser.add_argument("--name", required=True, help="what to call the data set")
    parser.add_argument(
        "--out", default="datasets", metavar="DIR", help="the folder of data sets"
    )
    parser.add_argument(
        "--root", required=one.needs_root, metavar="PATH", help=one.root
    )
    if one.images:
        parser.add_argument(
            "--images", nargs="+", action="extend", metavar="DIR", help=one.images
        )
    parser.add_argument(
        "--split", nargs="+", action="extend", metavar=one.split, help=_NAMED
    )
    parser.add_argument(
        "--split-by",
        metavar="NAME:PART,...",
        help="divide the images at random, as train:0.8,val:0.2, all classes alike",
    )
    parser.add_argument(
        "--split-seed", type=int, default=0, help="another number divides otherwise"
    )
    parser.add_argument(
        "--balanced",
        action="store_true",
        help="divide as many images of each class as the rarest has; no more are used",
    )
    parser.add_argument("--classes", metavar="A,B,C", help="the classes, in this order")
    if one.objects:
        parser.add_argument(
            "--objects",
            choices=("values", "components"),
            help="whether every value of a map is an object, or every separate part",
        )
    if one.columns:
        parser.add_argument(
            "--columns",
            metavar="FILE,LABEL",
            help="the names of the columns (default: file or the like, and label)",
        )
    if one.maps:
        map_flags.add(parser)
    if one.numbers:
        map_flags.add_numbers(parser)
    if one.outside:
        parser.add_argument(
            "--allow-outside",
            action="store_true",
            help="read images and annotations that the files name outside the folder",
        )
    parser.add_argument(
        "--on-error",
        choices=("fail", "skip"),
        default="fail",
        help="stop at bad annotations, or drop and list them",
    )
    parser.add_argument("--debug", action="store_true", help="show stack traces")


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", required=True, help="the data set")
    parser.add_argument(
        "--data-dir", default="datasets", metavar="DIR", help="the folder of data sets"
    )
    parser.add_argument(
        "--to",
        required=True,
        choices=("coco", "folders"),
        help="COCO's JSON files and images, or a folder of pictures a class",
    )
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="a folder that is not there yet"
    )
    parser.add_argument("--debug", action="store_true", help="show stack traces")


def keywords(flags: dict[str, Any]) -> dict[str, Any]:
    """The keywords of `prepare`. Raises UserError for splits that repeat."""
    held = {k: v for k, v in flags.items() if k != "debug" and v is not None}
    for name in ("allow_outside", "balanced"):
        if not held.get(name):
            held.pop(name, None)
    made: dict[str, Any] = {"data_dir": held.pop("out")}
    source = held.pop("source", "files")
    splits: dict[str, Any] = {}
    if "split" in held:
        splits = _pairs(held.pop("split"))
        if held["format"] == "folders" and held.get("root") is not None:
            splits = {k: int(v) if v.isdecimal() else v for k, v in splits.items()}
        made["splits"] = splits
    if "images" in held:
        made["images"] = _images(held.pop("images"), splits)
    for key in ("classes", "columns"):
        if key in held:
            made[key] = tuple(c.strip() for c in held.pop(key).split(","))
    for key in ("values", "ignore"):
        if key in held:
            made[key] = map_flags.numbers(key, held.pop(key))
    if "split_by" in held:
        made["split_by"] = _shares(held.pop("split_by"))
    return map_flags.sourced(source, made | held, OBJECTS)


def _images(given: list[str], splits: dict[str, str]) -> str | dict[str, str]:
    """The one folder of images, or that of each split."""
    split, found, _ = given[0].partition("=")
    one = len(given) == 1 and not (found and split in splits)
    return given[0] if one else _pairs(given)


def _shares(text: str) -> dict[str, float]:
    """{split: part} of "train:0.8,val:0.2"."""
    made: dict[str, float] = {}
    for item in text.split(","):
        name, _, value = item.strip().replace("=", ":").partition(":")
        try:
            share = float(value)
        except ValueError:
            raise UserError(
                f"--split-by={text}: {item.strip()!r} is not a split and its part; "
                "write it as train:0.8,val:0.2"
            ) from None
        if name in made:
            raise UserError(f"--split-by={text} names {name!r} twice")
        made[name] = share
    return made


def _pairs(given: list[str]) -> dict[str, str]:
    """{name: value} of NAME=VALUE; a name alone is its own value."""
    made: dict[str, str] = {}
    for item in given:
        name, _, value = item.partition("=")
        if name in made:
            raise UserError(f"{name!r} is named twice, as {made[name]!r} and {value!r}")
        made[name] = value or name
    return made


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command with the flags `argv`, by default the process's own."""
    flags = arguments(argv)
    cli.tolerate_odd_streams()
    with cli.reported():
        # Here: asking for help reads no image.
        from detjax.tasks import TASKS

        if flags["format"] == "export":
            from detjax.data import export

            export.export(
                flags["name"], flags["data_dir"], flags["out"], flags["to"], TASKS
            )
            return
        from detjax.data import prepare

        given = keywords(flags)
        task = TASKS[prepare.FORMATS[given["format"]].TASK]
        prepare.prepare(task=task, log=print, **given)
