"""Image files that OpenCV refuses loudly are like any other that cannot be decoded."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from detjax import predict
from detjax.data import builder, example, images, pictures, pixels
from detjax.data.formats import labelmaps
from detjax.data.records import Record
from detjax.errors import UserError


@pytest.fixture
def huge(tmp_path):
    """A PNG of more pixels than OpenCV takes, in a few bytes."""

    def chunk(name, data):
        whole = name + data
        return (
            struct.pack(">I", len(data)) + whole + struct.pack(">I", zlib.crc32(whole))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    path = tmp_path / "huge.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + body)
    return path


def test_more_pixels_than_opencv_takes_are_a_sentence(huge):
    with pytest.raises(UserError, match=r"huge\.png has more than 178,956,970 pixels"):
        predict.read_image(huge)
    with pytest.raises(ValueError, match="the image cannot be decoded"):
        example.decode(huge.read_bytes())
    reason, detail = images.inspect(huge).fault
    assert reason == "unreadable image"
    assert "more than 178,956,970 pixels" in detail
    with pytest.raises(UserError, match="more than 178,956,970 pixels"):
        labelmaps.load(huge)


def test_what_is_no_image_is_named_where_it_is_written():
    with pytest.raises(ValueError, match=r"a\.bmp cannot be decoded"):
        builder.encoded(Record(1, "a.bmp", 4, 4, image=b"BM nothing"))


def encoded(form, image, **options):
    out = io.BytesIO()
    Image.fromarray(image).save(out, form, **options)
    return out.getvalue()


SMOOTH = cv2.resize(
    np.random.default_rng(0).integers(0, 255, (4, 5, 3), np.uint8), (40, 32)
)


@pytest.mark.parametrize("form", ["GIF", "AVIF"])
def test_gif_and_avif_are_read_in_preparing_and_prediction(tmp_path, form):
    path = tmp_path / f"a.{form.lower()}"
    path.write_bytes(encoded(form, SMOOTH))
    stored = example.decode(images.inspect(path).data)
    np.testing.assert_array_equal(predict.read_image(path), stored)
    assert np.abs(np.int16(stored) - SMOOTH).mean() < 8
    assert pictures.is_picture(path.name)
    path.write_bytes(path.read_bytes()[:300])
    assert "cannot be decoded" in images.inspect(path).fault[1]


def test_the_first_frame_of_a_gif():
    frames = [Image.fromarray(np.full((9, 9, 3), v, np.uint8)) for v in (200, 10)]
    out = io.BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    assert (pixels.rgb(out.getvalue()) == 200).all()


def test_a_pillow_without_avif_says_so(monkeypatch):
    from PIL import features

    data = encoded("AVIF", SMOOTH)
    monkeypatch.setattr(features, "check", lambda name: False)
    with pytest.raises(UserError, match=r"is an AVIF file.*pip install 'pillow>=11.3'"):
        pixels.rgb(data)


def test_a_turned_avif_is_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a.avif"
    path.write_bytes(encoded("AVIF", SMOOTH, exif=exif.tobytes(), quality=95))
    found = predict.read_image(path)
    assert np.abs(np.int16(found) - np.rot90(SMOOTH, -1)).mean() < 4
    assert images.inspect(path).size == (40, 32)


@pytest.mark.parametrize("ending", [".png", ".tiff"])
@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_deep_images_keep_their_highest_bits(tmp_path, ending, colours, bits):
    rng = np.random.default_rng(bits)
    deep = rng.integers(0, 1 << bits, (32, 40, colours), np.uint16)
    deep[0, 0, 0] = (1 << bits) - 1
    path = tmp_path / f"a{ending}"
    assert cv2.imwrite(str(path), deep[..., ::-1])
    expected = np.broadcast_to(deep >> (bits - 8), (32, 40, 3))
    np.testing.assert_array_equal(predict.read_image(path), expected)
    stored = images.inspect(path)
    np.testing.assert_array_equal(example.decode(stored.data), expected)
    assert stored.data[24] == 8


def test_bits_between_are_rounded_up_to_those_of_sensors():
    for most, shift in ((300, 2), (1024, 4), (2000, 4), (4096, 6), (20_000, 8)):
        image = np.array([[0, most]], np.uint16)
        np.testing.assert_array_equal(pixels.eight_bits(image), image >> shift)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (np.float32, "floating point"),
        (np.int32, "pixels of int32"),
        (np.int16, "pixels of int16"),
    ],
)
def test_other_numbers_are_named(tmp_path, kind, words):
    path = tmp_path / "a.tiff"
    assert cv2.imwrite(str(path), np.full((8, 8), -5, kind))
    with pytest.raises(UserError, match=words) as caught:
        predict.read_image(path)
    assert str(path) in str(caught.value)
    assert words in images.inspect(path).fault[1]
