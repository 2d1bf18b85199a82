"""Images: whole or named, and stored upright."""

import io
import os
import struct
import zlib

import cv2
import numpy as np
import pytest
import tiny_sets
from PIL import Image, ImageOps

from detjax.data import builder, images, report, summary
from detjax.data.formats import coco
from detjax.data.prepare import prepare
from detjax.tasks import detection

NOISE = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)


def saved(form, image=NOISE, **options):
    out = io.BytesIO()
    Image.fromarray(image).save(out, form, **options)
    return out.getvalue()


def turned(form, orientation, image=NOISE):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(form, image, exif=exif, **({"quality": 95} if form == "JPEG" else {}))


def fault(tmp_path, data, name="a.jpg"):
    path = tmp_path / name
    path.write_bytes(data)
    found = images.inspect(path)
    assert (found.data == b"") == (found.fault is not None)
    return found.fault and found.fault[1]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_stored_upright(form, orientation):
    smooth = cv2.resize(NOISE[:6, :8], (64, 48))
    data = turned(form, orientation, smooth)
    found = images.stored(data, "a")
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    assert found.size == upright.size[::-1]
    # TIFFs are upright before they are looked at.
    assert found.turned == (1 if form == "TIFF" else orientation)
    assert (found.data == data) == (orientation == 1 and form in ("JPEG", "PNG"))
    stored = Image.open(io.BytesIO(found.data))
    assert stored.getexif().get(0x0112, 1) == 1
    difference = np.abs(np.int16(stored.convert("RGB")) - np.int16(upright))
    assert difference.mean() < 2


def rotated_set(folder, **declared):
    content = tiny_sets.coco_content()
    content["images"][1].update(declared)
    content["annotations"] = [tiny_sets.thing(19, 43, 7, [5, 6, 20, 50])]
    path = tiny_sets.write_coco(folder, content)
    (folder / "images" / "b.png").write_bytes(turned("PNG", 6))
    return path


def test_annotations_are_in_upright_pixels(tmp_path):
    path = rotated_set(tmp_path, width=48, height=64)
    found = coco.read(path, tmp_path / "images")
    assert not found.problems
    assert (found.records[1].height, found.records[1].width) == (64, 48)
    assert found.records[1].truth[0].box == (5, 6, 25, 56)
    lines = []
    arguments = {"splits": {"train": path}, "images": tmp_path / "images"}
    prepare("c", tmp_path, detection.TASK, format="coco", log=lines.append, **arguments)
    assert "images rotated by EXIF 1" in " ".join(lines[0].split())
    record = builder.source("c", tmp_path, "train", detection.TASK)[1]
    image = cv2.imdecode(np.frombuffer(record.image, np.uint8), cv2.IMREAD_COLOR_RGB)
    np.testing.assert_array_equal(image, np.rot90(NOISE, -1))


def test_sizes_of_stored_pixels_are_a_problem_of_its_own(tmp_path):
    path = rotated_set(tmp_path, width=64, height=48)
    (problem,) = coco.read(path, tmp_path / "images").problems
    assert problem.reason == "rotated by EXIF"
    assert "is declared 64 x 48 but is 48 x 64 pixels upright" in str(problem)


def test_half_turns_are_counted_too():
    record = builder.Record(1, "a.png", 4, 4)
    assert (
        summary.row(record, detection.TASK, True).counts["images rotated by EXIF"] == 1
    )
    empty = summary.Summary("train", ())
    assert "rotated" not in report.table(empty)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_half_a_jpeg_with_an_end_marker(tmp_path, progressive, mode):
    out = io.BytesIO()
    image = Image.fromarray(NOISE).convert(mode)
    image.save(out, "JPEG", progressive=progressive)
    data = out.getvalue()
    assert fault(tmp_path, data) is None
    assert "ends early" in fault(tmp_path, data[: len(data) // 2] + b"\xff\xd9")
    assert "cut off" in fault(tmp_path, data[: len(data) // 2])


def test_a_flat_corner_is_no_end(tmp_path, capfd):
    flat = NOISE.copy()
    flat[-16:, -16:] = 255
    assert fault(tmp_path, saved("JPEG", flat)) is None
    assert capfd.readouterr().err == ""


def chunk(kind, data):
    return (
        struct.pack(">I", len(data))
        + kind
        + data
        + struct.pack(">I", zlib.crc32(kind + data))
    )


def test_half_a_png_with_its_end(tmp_path):
    data = saved("PNG")
    assert fault(tmp_path, data[: len(data) // 2] + data[-12:], "a.png")
    # Chunk by chunk it is sound: only the pixels end early.
    packed = zlib.compress(bytes(48 * (1 + 3 * 64)))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 48, 8, 2, 0, 0, 0))
    for kept in (len(packed), len(packed) // 2):
        body = chunk(b"IDAT", packed[:kept]) + chunk(b"IEND", b"")
        found = fault(tmp_path, images.PNG + head + body, "b.png")
        assert (found is None) == (kept == len(packed))


@pytest.mark.parametrize("form", ["BMP", "WEBP", "GIF", "TIFF"])
def test_other_formats_are_whole_or_named(tmp_path, form):
    data = saved(form)
    assert fault(tmp_path, data) is None
    assert "cannot be decoded" in fault(tmp_path, data[: len(data) * 6 // 10])


def test_floats_and_bombs(tmp_path):
    floats = cv2.imencode(".tiff", NOISE.astype(np.float32) / 255)[1].tobytes()
    assert "floating point" in fault(tmp_path, floats, "f.tiff")
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0))
    bomb = images.PNG + head + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    assert "more than 178,956,970 pixels" in fault(tmp_path, bomb, "bomb.png")


def test_fifos_and_folders_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    assert "is a FIFO" in images.inspect(tmp_path / "a.png").fault[1]
    assert "is a folder" in images.inspect(tmp_path).fault[1]
    (tmp_path / "loop.png").symlink_to("loop.png")
    assert "loop.png" in images.inspect(tmp_path / "loop.png").fault[1]
    assert "too long" in images.inspect(tmp_path / ("a" * 300)).fault[1]
