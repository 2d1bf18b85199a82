"""Image files to arrays, by OpenCV, or by Pillow for GIF and AVIF."""

import io
import warnings

import cv2
import numpy as np

from detjax.errors import UserError

# What sensors record, in files of 16 bits.
_DEPTHS = (8, 10, 12, 14, 16)


def decode(data: bytes, flags: int) -> np.ndarray:
    """The pixels of an encoded image; `flags` are OpenCV's (cv2.IMREAD_...).

    Raises UserError if decoding fails, MemoryError if it is too large.
    """
    pixels = None
    try:
        if data:
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:  # of more pixels than OpenCV takes, or than fit
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError("no room for the pixels of an image") from error
    if pixels is None:
        raise UserError("the image cannot be decoded")
    return pixels


def rgb(data: bytes) -> np.ndarray:
    """RGB uint8 [h w 3] of an image file of any format, not rotated by EXIF.

    Grey is repeated, palettes are resolved, alpha is dropped; of several frames the
    first is taken. More than 8 bits a channel are reduced by `eight_bits`. Raises
    UserError, whose message lacks its subject.
    """
    if data.startswith(b"GIF8") or is_avif(data):
        return _by_pillow(data)
    # Not IMREAD_COLOR_RGB, which confuses the pixels of TIFFs of 16 bits.
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = decode(data, flags)
    except UserError:
        # OpenCV has no colours of some types, which are named.
        eight_bits(decode(data, cv2.IMREAD_UNCHANGED))
        raise
    return cv2.cvtColor(eight_bits(image), cv2.COLOR_BGR2RGB)


def eight_bits(image: np.ndarray) -> np.ndarray:
    """`image` as uint8, whose highest bits are kept.

    Cameras store 10, 12 or 14 bits in files of 16: an image of 16 bits is taken to have
    the least of 8, 10, 12, 14 and 16 bits that hold its maximum. All 16 are divided by
    256; a maximum of 4,095 is one of 12 bits, which are divided by 16. Raises
    UserError, whose message lacks its subject, for other numbers.
    """
    if image.dtype == np.uint8:
        return image
    advice = "save it with 8 or 16 bits a channel, from 0 up"
    if image.dtype.kind == "f":
        raise UserError(f"has pixels of floating point; {advice}")
    if image.dtype.itemsize > 2 or image.min(initial=0) < 0:
        raise UserError(f"has pixels of {image.dtype}; {advice}")
    used = int(image.max(initial=0)).bit_length()
    depth = next(depth for depth in _DEPTHS if depth >= used)
    return (image >> (depth - 8)).astype(np.uint8)


def is_avif(data: bytes) -> bool:
    """Whether an image file is an AVIF, by the brands in its first box."""
    if data[4:8] != b"ftyp":
        return False
    brands = data[8 : min(int.from_bytes(data[:4], "big"), 256)]
    return b"avif" in brands or b"avis" in brands


def _by_pillow(data: bytes) -> np.ndarray:
    import PIL
    from PIL import Image, features

    if is_avif(data) and not features.check("avif"):
        raise UserError(
            f"is an AVIF file, which Pillow {PIL.__version__} here cannot read; "
            "pip install 'pillow>=11.3', or save it as a PNG"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                return np.array(image.convert("RGB"))
    except MemoryError:
        raise
    except Exception:
        # Pillow's readers raise any exception on a broken file.
        raise UserError("the image cannot be decoded") from None


def quiet() -> None:
    """Silences OpenCV's messages about broken files; errors report them."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
