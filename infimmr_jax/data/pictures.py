"""Picture files opened safely: allowed formats, size limits seen in the header, stated decoding rules."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from infimmr_jax.config import ImageSection
from infimmr_jax.data.records import DataError

# Pillow also opens formats that start other programs (EPS) or hold several documents (PDF): only pictures are read.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_ORIENTATION_TAG = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
_DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, OverflowError, struct.error, zlib.error)

ImageSource = str | Path | bytes


def open_image(source: ImageSource, section: ImageSection) -> Image.Image:
    """Decode a file or encoded bytes to an upright RGB image of 8 bits a channel.

    Rules, whatever the library version: EXIF rotation is applied; alpha (also a palette's or a transparent colour) is
    composited on white; gray, palette, CMYK and YCbCr become RGB; 16-bit gray keeps its high byte; of an animation the
    first frame is taken. Raises DataError, naming the file, on a missing, truncated, undecodable or unsupported image
    and on one of more than `max_file_pixels` pixels, which is seen in the header before anything is decoded.
    """
    with _opened(source, section) as image:
        orientation = _orientation(image)
        try:
            image.load()
            upright = image.transpose(_TRANSPOSE[orientation]) if orientation in _TRANSPOSE else image
            return _to_rgb(upright, source)
        except DataError:
            raise
        except _DECODE_ERRORS as error:
            raise DataError(f"image {_name(source)} can not be decoded: {error}; replace the file") from error


def image_size(source: ImageSource, section: ImageSection) -> tuple[int, int]:
    """Width and height in pixels of the upright image, from its header alone; errors as in `open_image`."""
    with _opened(source, section) as image:
        width, height = image.size
        return (height, width) if _orientation(image) >= 5 else (width, height)


@contextlib.contextmanager
def _opened(source: ImageSource, section: ImageSection) -> Iterator[Image.Image]:
    """The image with its header read and its size checked."""
    name = _name(source)
    try:
        image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)
    except FileNotFoundError as error:
        raise DataError(f"image {name} does not exist; correct the path or remove the row") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"image {name} is too large: {error}") from error
    except _DECODE_ERRORS as error:
        raise DataError(f"image {name} can not be read as one of {', '.join(FORMATS)}: {error}") from error
    with image:
        width, height = image.size
        if width * height > section.max_file_pixels:
            raise DataError(
                f"image {name} has {width} x {height} pixels, more than data.image.max_file_pixels = "
                f"{section.max_file_pixels}; shrink the file or raise the limit"
            )
        yield image


def _orientation(image: Image.Image) -> int:
    if image.format == "TIFF":
        return 1  # Pillow turns TIFF itself, in the header's size as well.
    # The base class's getexif: PNG's own one decodes the pixels to look for a chunk behind them.
    try:
        return int(Image.Image.getexif(image).get(_ORIENTATION_TAG, 1))
    except (*_DECODE_ERRORS, TypeError):
        return 1  # Unreadable EXIF says nothing about rotation; the pixels are still good.


def _to_rgb(image: Image.Image, source: ImageSource) -> Image.Image:
    if image.mode in ("I", "F"):
        raise DataError(
            f"image {_name(source)} has 32-bit pixels (mode {image.mode}) without a stated range; save it with 8 bits"
        )
    if image.mode in _SIXTEEN_BIT:
        values = np.asarray(image)
        gray = (values >> 8).astype(np.uint8)
        if "transparency" in image.info:
            gray[values == image.info["transparency"]] = 255
        image = Image.fromarray(gray)
    elif image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    # A fresh image: nobody downstream may turn it again by the file's EXIF, or keep the file's buffers alive.
    plain = Image.new("RGB", image.size)
    plain.paste(image if image.mode == "RGB" else image.convert("RGB"))
    return plain


def _name(source: ImageSource) -> str:
    return f"of {len(source)} encoded bytes" if isinstance(source, bytes) else str(source)
