"""Images as they are stored: read once, known to be whole, upright.

Annotations are in upright pixels, as labelling tools show pictures and as detectron2
takes them.
"""

import io
import os
import threading
import warnings
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
# What Python's filters of warnings and the process's stderr are changed under.
_LOCK = threading.Lock()


class Look(NamedTuple):
    """What is known of an image file; `data` is what of it is to be stored."""

    data: bytes
    size: Size  # upright
    turned: int  # EXIF's orientation that was undone; 1 is upright
    fault: Fault | None


class Head(NamedTuple):
    """What an image file says at its beginning."""

    size: Size | None
    turned: int
    mode: str  # Pillow's word for the channels; "" where it knows none
    layered: bool  # a JPEG that comes in several scans


def look(path: Path) -> Look:
    """The image at `path`, or what is wrong with it."""
    try:
        data = files.read_bytes(path)
    except MissingFileError:
        return _bad("missing image", f"has no image file: {path} does not exist")
    except UserError as error:
        return _bad("missing image", f"has no image file: {error}")
    try:
        return stored(data, path.name)
    except UserError as error:
        return _bad("unreadable image", str(error))


def _bad(reason: str, detail: str) -> Look:
    return Look(b"", (0, 0), 1, (reason, detail))


def stored(data: bytes, name: str) -> Look:
    """An image file as it is stored: upright, and JPEG or PNG.

    A JPEG or PNG that is upright stays as it is, byte by byte; a JPEG that EXIF turns
    becomes one of quality 95, all else a PNG. Raises UserError, whose sentence lacks
    its subject, where the image is not whole.
    """
    if cut_off(data):
        raise UserError(f"is cut off after {len(data)} bytes")
    known = head(data)
    if known.size and known.size[0] * known.size[1] > MOST_PIXELS:
        raise UserError(
            f"has more than {MOST_PIXELS:,} pixels, the most that is read; shrink it"
        )
    jpeg = data.startswith(JPEG)
    if known.turned == 1 and (jpeg or data.startswith(PNG)):
        # Grey is quickest, and all of a JPEG's data is read for it.
        found = _decoded(data, cv2.IMREAD_GRAYSCALE | _STORED, name)
        _check_end(data, found, known, name)
        return Look(data, found.shape[:2], 1, None)
    if not jpeg and _decoded(data, cv2.IMREAD_UNCHANGED, name).dtype.kind == "f":
        raise UserError("has pixels of floating point; save it with 8 bits a channel")
    found = _decoded(data, cv2.IMREAD_COLOR | _STORED, name)
    _check_end(data, found, known, name)
    found = upright(found, known.turned)
    form, flags = (".jpg", [cv2.IMWRITE_JPEG_QUALITY, 95]) if jpeg else (".png", [])
    return Look(
        cv2.imencode(form, found, flags)[1].tobytes(),
        found.shape[:2],
        known.turned,
        None,
    )


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


def head(data: bytes) -> Head:
    """What Pillow reads of an image file without its pixels."""
    try:
        with _LOCK, warnings.catch_warnings():
            # Of large images and broken EXIF.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                turned = image.getexif().get(_ORIENTATION, 1)
                # OpenCV has TIFFs upright, whatever it is told.
                known = turned in range(1, 9) and image.format != "TIFF"
                return Head(
                    (image.height, image.width),
                    int(turned) if known else 1,
                    image.mode,
                    "progressive" in image.info,
                )
    except Image.DecompressionBombError:
        return Head((MOST_PIXELS, 2), 1, "", False)
    except Exception:
        # Pillow's readers raise whatever a broken file leads them to. OpenCV knows
        # files that it does not, and says which are none.
        return Head(None, 1, "", False)


def _decoded(data: bytes, flags: int, name: str) -> np.ndarray:
    try:
        # `_heard` takes what is printed meanwhile for what it asks about.
        with _LOCK:
            return pixels.decode(data, flags)
    except UserError:
        raise UserError(f"cannot be decoded: {name}") from None


def _check_end(data: bytes, found: np.ndarray, known: Head, name: str) -> None:
    """Raises UserError where a JPEG ends early though it has an end marker.

    What follows its last block repeats that block's mean, so that a last block with a
    change in it is enough; else libjpeg, which warns on stderr alone, is heard.
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
    """What is printed on stderr while `data` is decoded in grey."""
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
