"""Make COCO files of drawn pictures, as many and as large as a measurement needs.

    python scripts/synthetic_coco.py DIR --images=100000 --objects=8 --ids=14-digit
    python scripts/synthetic_coco.py DIR --images=300 --megabytes-per-image=3.7
    python scripts/make_dataset.py coco --name=synthetic --images=DIR/images \\
        --split=train=DIR/train.json --split=val=DIR/val.json --on-error=skip

A twentieth of the images is the split val. Some objects are uncompressed run lengths,
some of them crowds, the rest polygons. `--faults` adds what COCO train2017 has, too:
two boxes without a width and polygons without a pixel.
"""

import argparse
import json
import math
import pathlib
from typing import Any

import cv2
import numpy as np

WIDTH, HEIGHT = 160, 120
DRAWN = 200  # different pictures; the rest repeat them with other bytes
CLASSES = ("circle", "box", "blob", "star", "bar", "dot", "ring", "leaf")
FIRST_ID = {"small": 1, "14-digit": 20_240_131_000_000}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=pathlib.Path, metavar="DIR")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--objects", type=int, default=8, help="of each image")
    parser.add_argument("--ids", choices=tuple(FIRST_ID), default="small")
    parser.add_argument("--faults", action="store_true")
    parser.add_argument("--megabytes-per-image", type=float, default=0)
    flags = parser.parse_args()
    if flags.images < 20 or flags.objects < 1:
        parser.error("it takes 20 images and an object at least")
    make(
        flags.folder,
        flags.images,
        flags.objects,
        FIRST_ID[flags.ids],
        flags.faults,
        flags.megabytes_per_image,
    )


def make(
    folder: pathlib.Path,
    count: int,
    objects: int,
    first_id: int,
    faults: bool,
    megabytes: float,
) -> None:
    """Writes train.json, val.json and images/ into `folder`."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    # Noise takes about 1.12 bytes a pixel as a JPEG of quality 95.
    width = round(math.sqrt(megabytes * 1e6 * 4 / 3 / 1.12)) if megabytes else WIDTH
    size = width, round(width * 3 / 4)
    drawn = [
        picture(rng, size, megabytes > 0) for _ in range(1 if megabytes else DRAWN)
    ]
    held = count // 20
    for split, numbers in (("val", range(held)), ("train", range(held, count))):
        content = {"images": [], "annotations": [], "categories": categories()}
        for number in numbers:
            name = f"{number:08d}.jpg"
            path = folder / "images" / name
            # A comment behind the end marker: other bytes, the same picture.
            path.write_bytes(drawn[number % len(drawn)] + name.encode())
            content["images"].append(
                {
                    "id": first_id + number,
                    "file_name": name,
                    "width": size[0],
                    "height": size[1],
                }
            )
            content["annotations"] += [
                thing(rng, number * objects + i, first_id + number, size)
                for i in range(objects)
            ]
        if faults and split == "train":
            break_some(content["annotations"])
        (folder / f"{split}.json").write_text(json.dumps(content))


def categories() -> list[dict]:
    """The categories, whose ids have holes."""
    return [{"id": 3 * i + 1, "name": name} for i, name in enumerate(CLASSES)]


def picture(rng: np.random.Generator, size: tuple[int, int], noisy: bool) -> bytes:
    """A JPEG: noise, or coloured ellipses before a slope."""
    width, height = size
    if noisy:
        image = rng.integers(0, 255, (height, width, 3), np.uint8)
        return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    ramp = np.linspace(0, 200, width, dtype=np.uint8)
    image = np.repeat(np.repeat(ramp[None, :, None], height, 0), 3, 2)
    for _ in range(6):
        centre = rng.integers([width, height]).tolist()
        axes = rng.integers(5, 40, 2).tolist()
        colour = rng.integers(0, 255, 3).tolist()
        cv2.ellipse(image, centre, axes, 0, 0, 360, colour, -1)
    return cv2.imencode(".jpg", image)[1].tobytes()


def thing(rng: np.random.Generator, number: int, image: int, size) -> dict:
    """An annotation: a polygon of twelve corners, or now and then run lengths."""
    width, height = size
    x, y = rng.uniform(0.2, 0.8, 2) * size
    radius = rng.uniform(0.05, 0.19) * height
    row: dict[str, Any] = {
        "id": number + 1,
        "image_id": image,
        "category_id": 3 * (number % len(CLASSES)) + 1,
        "iscrowd": int(number % 50 == 0),
    }
    if number % 25 == 0:
        left, right = int(x - radius), int(x + radius)
        top, bottom = int(y - radius), int(y + radius)
        inside = bottom - top
        runs = [left * height + top, *[inside, height - inside] * (right - left)]
        runs[-1] = width * height - sum(runs[:-1])
        row["segmentation"] = {"size": [height, width], "counts": runs}
        row["bbox"] = [left, top, right - left, inside]
        row["area"] = inside * (right - left)
        return row
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    corners = np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], 1)
    low, high = corners.min(0), corners.max(0)
    row["segmentation"] = [corners.round(2).ravel().tolist()]
    row["bbox"] = np.append(low, high - low).round(2).tolist()
    row["area"] = round(3 * radius**2, 2)
    return row


def break_some(rows: list[dict]) -> None:
    """Gives two annotations a box of width 0, and twenty a polygon of no pixel."""
    for row in rows[:2]:
        row["bbox"][2] = 0
    polygons = [row for row in rows[2:] if isinstance(row["segmentation"], list)]
    for row in polygons[:: max(1, len(polygons) // 20)]:
        x, y = row["segmentation"][0][:2]
        row["segmentation"] = [[x, y, x + 0.1, y, x + 0.1, y + 0.1]]
        row["bbox"] = [x, y, 0.1, 0.1]


if __name__ == "__main__":
    main()
