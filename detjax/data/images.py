"""Checks of image files, and their stored form: complete and upright.

Annotations are in upright pixels, as labelling tools show pictures and as detectron2
takes them.
"""

import contextlib
import io
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from detjax import files
from detjax.data import pixels
from detjax.errors import MissingFileError, UserError

Size = tuple[int, int]  # (h, w)

# As (reason, detail) of a `Problem`.
Fault = tuple[str, str]

# Pillow's own limit: a few bytes can claim any number of pixels.
MOST_PIXELS = 178_956_970

JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_ORIENTATION = 0x0112  # EXIF's tag
_STORED = cv2.IMREAD_IGNORE_ORIENTATION
# Held while changing Python's warning filters or the process's stderr.
_LOCK = threading.Lock()


class Inspection(NamedTuple):
    """A checked image file; `data` are the bytes to store."""

    data: bytes
    size: Size  # upright
    turned: int  # EXIF's orientation that was undone; 1 is upright
    fault: Fault | None


class Header(NamedTuple):
    """The header of an image file."""

    size: Size | None
    turned: int
    mode: str  # Pillow's mode; "" if unknown
    layered: bool  # a progressive JPEG


def inspect(path: Path) -> Inspection:
    """The image at `path`, or its problem."""
    try:
        data = files.read_bytes(path)
    except MissingFileError:
        return _bad("missing image", f"has no image file: {path} does not exist")
    except UserError as error:
        return _bad("missing image", f"has no image file: {error}")
    return inspected(data, path.name)


def inspected(data: bytes, name: str = "image") -> Inspection:
    """The image file of content `data`, or its problem."""
    try:
        return stored(data, name)
    except UserError as error:
        return _bad("unreadable image", str(error))


def _bad(reason: str, detail: str) -> Inspection:
    return Inspection(b"", (0, 0), 1, (reason, detail))


def stored(data: bytes, name: str) -> Inspection:
    """An image file as it is stored: upright, and JPEG or PNG.

    An upright JPEG or PNG of 8 bits is kept byte for byte; a JPEG that EXIF rotates is
    re-encoded at quality 95, all else as PNG, see `pixels.rgb`. Raises UserError, whose
    message lacks its subject, if the image is incomplete.
    """
    if cut_off(data):
        raise UserError(f"is cut off after {len(data)} bytes")
    known = _small(header(data))
    jpeg = data.startswith(JPEG)
    # A PNG's header has the bits of a channel at byte 24.
    if known.turned == 1 and (
        jpeg or (data.startswith(PNG) and data[24:25] <= b"\x08")
    ):
        # Decoding to grey is fastest, and still reads all of a JPEG's data.
        found = _decoded(data, cv2.IMREAD_GRAYSCALE | _STORED)
        _check_end(data, found, known, name)
        return Inspection(data, found.shape[:2], 1, None)
    with _LOCK, _undecodable():
        found = pixels.rgb(data)
    _check_end(data, found, known, name)
    found = upright(found, known.turned)
    form, flags = (".jpg", [cv2.IMWRITE_JPEG_QUALITY, 95]) if jpeg else (".png", [])
    return Inspection(
        cv2.imencode(form, found[..., ::-1], flags)[1].tobytes(),
        found.shape[:2],
        known.turned,
        None,
    )


def read(data: bytes) -> np.ndarray:
    """An image file as RGB uint8 [h w 3], upright: the pixels that `stored` keeps.

    Raises UserError, whose message lacks its subject.
    """
    known = _small(header(data))
    with _undecodable("is not an image that can be decoded"):
        return upright(pixels.rgb(data), known.turned)


def _small(known: Header) -> Header:
    """`known`, of an image that is not too large."""
    if known.size and known.size[0] * known.size[1] > MOST_PIXELS:
        raise UserError(
            f"has more than {MOST_PIXELS:,} pixels, the most that is read; shrink it "
            "or cut it into parts"
        )
    return known


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """The image [h w ...] whose stored pixels have EXIF's `orientation`, 1 to 8."""
    # EXIF names where the first row and the first column are seen.
    if orientation >= 5:  # 5 left and top, 6 right and top, 7 right, bottom, 8 left
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def cut_off(data: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end; decoders fill the rest with grey."""
    if data.startswith(JPEG):
        # An end marker before the last scan is that of an embedded preview.
        return data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")
    if data.startswith(PNG[:4]):
        return b"IEND\xaeB`\x82" not in data
    return not data


def header(data: bytes) -> Header:
    """The header of an image file, read by Pillow."""
    try:
        with _LOCK, warnings.catch_warnings():
            # Warnings about large images and broken EXIF.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                turned = image.getexif().get(_ORIENTATION, 1)
                # OpenCV always decodes TIFFs upright, whatever the flags.
                known = turned in range(1, 9) and image.format != "TIFF"
                return Header(
                    (image.height, image.width),
                    int(turned) if known else 1,
                    image.mode,
                    "progressive" in image.info,
                )
    except Image.DecompressionBombError:
        return Header((MOST_PIXELS, 2), 1, "", False)
    except Exception:
        # Pillow's readers raise any exception on a broken file. OpenCV supports files
        # that Pillow does not, and detects the others.
        return Header(None, 1, "", False)


def _decoded(data: bytes, flags: int) -> np.ndarray:
    # `_heard` would attribute output printed meanwhile to its own image.
    with _LOCK, _undecodable():
        return pixels.decode(data, flags)


@contextlib.contextmanager
def _undecodable(
    said: str = "cannot be decoded: it is not an image, or not a whole one",
) -> Iterator[None]:
    """Says `said` of what cannot be decoded; other reasons are kept."""
    try:
        yield
    except UserError as error:
        if "cannot be decoded" not in str(error):
            raise
        raise UserError(said) from None


def _check_end(data: bytes, found: np.ndarray, known: Header, name: str) -> None:
    """Raises UserError if a JPEG is truncated although it has an end marker.

    Missing blocks repeat the mean of the last one, so a last block that is not constant
    proves the image complete; otherwise libjpeg's warnings on stderr are checked.
    """
    if not data.startswith(JPEG):
        return
    h, w = found.shape[:2]
    last = found[-(h % 8 or 8) :, -(w % 8 or 8) :].reshape(-1)
    hidden = known.layered or known.mode == "CMYK" or found.ndim == 3
    if not hidden and (last != last[0]).any():
        return
    said = _heard(data)
    if b"premature end" in said.lower():
        raise UserError(f"ends early: decoders fill the rest of {name} with grey")


def _heard(data: bytes) -> bytes:
    """The output on stderr while `data` is decoded to grey."""
    with _LOCK:
        try:
            before = os.dup(2)
        except OSError:
            return b""  # it is closed
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        try:
            os.dup2(writer, 2)
            pixels.decode(data, cv2.IMREAD_GRAYSCALE | _STORED)
        finally:
            os.dup2(before, 2)
            os.close(before)
            os.close(writer)
            try:
                said = os.read(reader, 1 << 16)
            finally:
                os.close(reader)
        return said
