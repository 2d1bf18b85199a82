"""Image files that OpenCV refuses loudly are like any other that cannot be decoded."""

import struct
import zlib

import pytest

from detjax import predict
from detjax.data import builder, example, images, labelmaps
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
