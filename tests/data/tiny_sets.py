"""Annotation folders of a few small images, as files, to be broken by tests."""

import json
import pathlib
import sys

import cv2
import numpy as np


def write_image(path: pathlib.Path, width: int = 64, height: int = 48) -> pathlib.Path:
    """A noisy image file, the same each time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    assert cv2.imwrite(str(path), pixels)
    return path


def coco_content() -> dict:
    """Three images, the last without objects, categories 3 and 7, two kinds of mask."""
    square = [[10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]]
    # The columns 40 to 49 of an image 48 high and 64 wide.
    runs = {"size": [48, 64], "counts": [40 * 48, 10 * 48, 14 * 48]}
    return {
        "images": [
            {"id": i, "file_name": f"{name}.png", "width": 64, "height": 48}
            for i, name in ((42, "a"), (43, "b"), (44, "c"))
        ],
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
        "annotations": [
            thing(17, 42, 3, [10, 10, 20, 20], segmentation=square, area=400.0),
            thing(18, 42, 7, [40, 0, 10, 48], segmentation=runs, iscrowd=1),
            thing(19, 43, 7, [5.5, 6.25, 20, 30]),
        ],
    }


def thing(number, image, category, box, **more) -> dict:
    """A row of COCO's annotations."""
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": box,
        **more,
    }


def write_coco(folder: pathlib.Path, content: dict | None = None) -> pathlib.Path:
    """The JSON of `content`, beside the images of `coco_content` in images/."""
    for name in "abc":
        write_image(folder / "images" / f"{name}.png")
    path = folder / "instances.json"
    path.write_text(json.dumps(coco_content() if content is None else content))
    return path


def voc_xml(
    things: str, width: int = 64, height: int = 48, name: str = "other.jpg"
) -> str:
    """An annotation file of VOC."""
    return (
        f"<annotation><filename>{name}</filename><size><width>{width}</width>"
        f"<height>{height}</height></size>{things}</annotation>"
    )


def voc_thing(name, x1, y1, x2, y2, difficult=0) -> str:
    """An object of such a file."""
    return (
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>"
        f"<xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
        "</bndbox></object>"
    )


def write_voc(folder: pathlib.Path, files: dict[str, str]) -> pathlib.Path:
    """A VOC folder of {stem: XML}, all of them listed in train.txt."""
    for stem, text in files.items():
        write_image(folder / "JPEGImages" / f"{stem}.jpg")
        path = folder / "Annotations" / f"{stem}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    listing = folder / "ImageSets" / "Main" / "train.txt"
    listing.parent.mkdir(parents=True, exist_ok=True)
    listing.write_text("\n".join(files) + "\n")
    return folder


def write_labelmaps(folder: pathlib.Path, maps: dict[str, np.ndarray]) -> pathlib.Path:
    """Label maps {stem: values}, each beside an image of 64 x 48."""
    (folder / "labels").mkdir(parents=True, exist_ok=True)
    for stem, labels in maps.items():
        write_image(folder / "images" / f"{stem}.png")
        assert cv2.imwrite(str(folder / "labels" / f"{stem}.png"), labels)
    return folder


# A script as a shell starts it, whatever runs the tests, and with files of a size at
# most. JAX's threads forbid that a child does this between fork and exec.
_STARTER = """
import resource, runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
limit = int(sys.argv[1])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
sys.argv = sys.argv[2:]
sys.path[0] = "scripts"
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def starting(script, *flags, limit: int = 0) -> list[str]:
    """The command that runs a script; its files have `limit` bytes at most."""
    return [sys.executable, "-c", _STARTER, *map(str, (limit, script, *flags))]
