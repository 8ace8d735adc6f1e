"""An image file as RGB: the one reader of evaluation and training.

Pixels are read as their file defines them, never guessed: more than 8 bits are scaled by the file's
own range, and an EXIF orientation is applied.  A file without one unique RGB picture (transparent
pixels, several frames) is refused with a sentence that names it.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile

from satbench.core.errors import SatbenchError
from satbench.core.limits import MOST_PIXELS

Bands = tuple[Image.Image, ...]
"""A picture: one image in RGB of bytes, or three of floats in [0, 1], red, green and blue."""

SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"),  # torchvision's
    *(".gif", ".jfif"),
)
"""Endings of image files, in lower case."""

_DEEP_FORMATS = {"PNG", "TIFF", "PPM", "PFM"}  # formats of which Pillow reads more than 8 bits
_DEEP_SUFFIXES = (".png", ".tif", ".tiff", ".ppm", ".pgm")
_SEE_THROUGH = {"LA", "La", "PA", "RGBA", "RGBa"}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transposition that undoes each EXIF orientation (CIPA DC-008, tag 274)."""

HEAD = 32
"""The first bytes of a file, which show whether it may have more than 8 bits per channel."""

_PNG_DEPTH = 24  # the place of the bit depth in a PNG (its specification, section 11.2.2)
_WHITE_IS_ZERO, _PHOTOMETRIC = 0, 262  # TIFF 6.0, section 3


def read_picture(path: Path, upright: bool = True, raw: bytes | None = None) -> Bands:
    """Read an image file, or its bytes `raw`, as RGB.

    Grey and palette become RGB, CMYK as Pillow converts it (as torchvision does). 16 bits are
    divided by 65535; floats must be in [0, 1].  With `upright` the EXIF orientation of an image is
    applied.  Raises SatbenchError, naming the file, if it is broken, has transparent pixels or
    several frames, or has numbers of unknown range.
    """
    with _opened(path, raw) as picture:
        _check_frames(picture)
        deep = _is_deep(picture)
        picture.load()
        bands = _deep_bands(picture, path, raw) if deep else _rgb(picture)
        turn = _TURNS.get(picture.getexif().get(ExifTags.Base.Orientation, 1)) if upright else None
        return bands if turn is None else tuple(band.transpose(turn) for band in bands)


def holds_more_than_bytes(path: Path, raw: bytes | None = None) -> bool:
    """Whether a file has more than 8 bits per channel, by its header; False for a broken one."""
    if raw is None and path.suffix.lower() not in _DEEP_SUFFIXES:
        return False
    try:
        if not may_be_deep(_head(path) if raw is None else raw):
            return False
        with _opened(path, raw) as picture:
            return _is_deep(picture)
    except (SatbenchError, OSError):  # reported when the image is read
        return False


def may_be_deep(head: bytes) -> bool:
    """Whether a file with these first HEAD bytes may have more than 8 bits per channel.

    This is certain for PNG, whose header has its depth; TIFF and portable maps must be opened.
    """
    if head.startswith(b"\x89PNG"):
        return head[_PNG_DEPTH : _PNG_DEPTH + 1] == b"\x10"
    return head.startswith((b"II", b"MM", b"P5", b"P6", b"Pf", b"PF"))


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD)


def as_bytes(bands: Bands) -> Image.Image:
    """Return a picture as one image in RGB of bytes; floats are rounded to the nearest of 256."""
    if len(bands) == 1:
        return bands[0]
    levels = [np.rint(np.asarray(band) * 255).astype(np.uint8) for band in bands]
    return Image.merge("RGB", [Image.fromarray(level) for level in levels])


@contextmanager
def _opened(path: Path, raw: bytes | None) -> Iterator[Image.Image]:
    """Open an image; any error becomes a sentence with its path."""
    lenient, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of broken EXIF, and the like
            with Image.open(path if raw is None else io.BytesIO(raw)) as picture:
                check_size(picture)
                yield picture
    except SatbenchError as error:
        raise SatbenchError(f"cannot take the image {path}: {error}") from None
    except Exception as error:  # a broken file raises every kind of error
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SatbenchError(
            f"cannot read the image {path} ({said}); repair or remove it"
        ) from error
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = lenient


def check_size(picture: Image.Image) -> None:
    """Raise SatbenchError for an image of too many pixels, before they are unpacked."""
    if picture.width * picture.height > MOST_PIXELS:
        raise SatbenchError(
            f"it has {picture.width} × {picture.height} pixels; expected at most {MOST_PIXELS:,}"
        )


def _check_frames(picture: Image.Image) -> None:
    # An MPO is a photo with more pictures after it, such as a depth map.
    frames = getattr(picture, "n_frames", 1)
    if frames > 1 and picture.format != "MPO":
        raise SatbenchError(f"it has {frames} frames; save the one that is meant")


def _rgb(picture: Image.Image) -> Bands:
    if picture.mode in _SEE_THROUGH or "transparency" in picture.info:
        _check_opaque(np.asarray(picture.convert("RGBA").getchannel("A")), white=255)
    return (picture if picture.mode == "RGB" else picture.convert("RGB"),)


def _check_opaque(alpha: NDArray[np.generic], white: int) -> None:
    if (alpha != white).any():
        raise SatbenchError("it has transparent pixels; save it on the background that is meant")


def _is_deep(picture: Image.Image) -> bool:
    """Whether an image that is not loaded yet has more than 8 bits per channel."""
    if picture.format not in _DEEP_FORMATS:
        return False
    # Pillow shows 16-bit colour as 8 bits: only the layout of the file shows the depth.
    tiles = getattr(picture, "tile", None)
    arguments = tiles[0][3] if tiles else ()
    words = arguments if isinstance(arguments, tuple) else (arguments,)
    wide = picture.format == "PPM" and any(isinstance(word, int) and word > 255 for word in words)
    return wide or picture.mode.startswith(("I", "F")) or any(";16" in str(word) for word in words)


def _deep_bands(picture: Image.Image, path: Path, raw: bytes | None) -> Bands:
    """Return a loaded image of more than 8 bits as three images of floats in [0, 1]."""
    if "transparency" in picture.info:
        raise SatbenchError("it has transparent pixels; save it on the background that is meant")
    if picture.format == "PNG":
        values = _png(path.read_bytes() if raw is None else raw)
    elif picture.mode == "F":
        values = _checked_floats(np.asarray(picture))[None]
    elif picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PPM"):
        values = _fraction(np.asarray(picture))[None]
    else:
        raise SatbenchError(
            f"it holds numbers ({picture.format}, {picture.mode}) that Pillow does not read whole; "
            "save it with 8 bits a channel, or as a PNG of 16"
        )
    if picture.format == "TIFF" and picture.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # type: ignore[attr-defined]
        values = 1 - values
    planes = [Image.fromarray(np.ascontiguousarray(plane)) for plane in values]
    return tuple(planes) if len(planes) == 3 else (planes[0],) * 3


def _png(raw: bytes) -> NDArray[np.float32]:
    """Read a PNG of 16 bits.  -> (1 or 3, H, W) in [0, 1]."""
    import torch
    from torchvision.io import decode_png

    values = decode_png(torch.frombuffer(bytearray(raw), dtype=torch.uint8)).numpy()
    if len(values) in (2, 4):
        _check_opaque(values[-1], white=65535)
        values = values[:-1]
    return _fraction(values)


def _fraction(values: NDArray[np.generic]) -> NDArray[np.float32]:
    return values.astype(np.float32) / np.float32(65535)


def _checked_floats(values: NDArray[np.float32]) -> NDArray[np.float32]:
    low, high = float(values.min()), float(values.max())
    if not 0 <= low <= high <= 1:  # also false for NaN
        raise SatbenchError(
            f"expected floats in [0, 1], got {low:.6g} to {high:.6g}; save them divided by their "
            "greatest possible value"
        )
    return values
