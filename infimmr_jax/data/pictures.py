"""Picture files opened safely: allowed formats, size limits seen in the header, stated decoding rules."""

from __future__ import annotations

import base64
import contextlib
import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from infimmr_jax.config import ImageSection
from infimmr_jax.data.records import DataError
from infimmr_jax.data.roots import open_resolved

# Pillow also opens formats that start other programs (EPS) or hold several documents (PDF): only pictures are read.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
# Nothing longer can be shown (the model's resize rule refuses it); a header of 1 x 64,000,000 takes 11 s to decode.
MAX_ASPECT_RATIO = 200
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
# How base64 of JPEG, PNG, GIF, WEBP begins, as tables of benchmarks hold them.
_BASE64 = ("/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR")
_PNG = b"\x89PNG\r\n\x1a\n"
# First column and row of each pass of an interlaced PNG, and the steps between its columns and rows.
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
_DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, OverflowError, struct.error, zlib.error)

# A text is the path of a picture of a problem: absolute, resolved when it was checked, and opened through no link. A
# Path is a file that a person named.
ImageSource = str | Path | bytes


def open_image(source: ImageSource, section: ImageSection) -> Image.Image:
    """Decode a file or encoded bytes to an upright RGB image of 8 bits a channel.

    Rules, whatever the library version: EXIF rotation is applied; alpha (also a palette's or a transparent colour) is
    composited on white; gray, palette, CMYK and YCbCr become RGB; 16-bit gray keeps its high byte; of an animation the
    first frame is taken. Raises DataError, naming the file, on a missing, truncated, undecodable or unsupported image
    and on one of more than `max_file_pixels` pixels or 200 times as long as wide, which is seen in the header before
    anything is decoded.
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


def check_image(source: ImageSource, section: ImageSection) -> None:
    """Refuse what `open_image` refuses, and a PNG whose pixel data stop before the last row, which Pillow fills up."""
    open_image(source, section)
    with _stream(source) as stream:
        content = stream.read()
    if content.startswith(_PNG):
        has, needs = _png_bytes(content)
        if has < needs:
            raise DataError(
                f"image {_name(source)} stops early: it holds {has:,} bytes of pixels, its header asks for {needs:,}; "
                "replace the file"
            )


def image_size(source: ImageSource, section: ImageSection) -> tuple[int, int]:
    """Width and height in pixels of the upright image, from its header alone; errors as in `open_image`."""
    with _opened(source, section) as image:
        width, height = image.size
        return (height, width) if _orientation(image) >= 5 else (width, height)


@contextlib.contextmanager
def _opened(source: ImageSource, section: ImageSection) -> Iterator[Image.Image]:
    """The image with its header read and its size checked."""
    name = _name(source)
    with contextlib.ExitStack() as stack:
        image = stack.enter_context(_header(stack.enter_context(_stream(source)), name))
        width, height = image.size
        if width * height > section.max_file_pixels:
            raise DataError(
                f"image {name} has {width} x {height} pixels, more than data.image.max_file_pixels = "
                f"{section.max_file_pixels}; shrink the file or raise the limit"
            )
        if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
            raise DataError(
                f"image {name} has {width} x {height} pixels: it is longer than {MAX_ASPECT_RATIO} times its width"
            )
        yield image


def decode_url(text: str) -> str | bytes:
    """Return the bytes of a `data:` address or of base64 text, or the path of a `file://` address or plain path.

    Raises DataError for base64 that is none, and for an address on the web: nothing is fetched.
    """
    if text.startswith(("http://", "https://")):
        raise DataError(f"the picture {text[:100]!r} is on the web; download it and give its path")
    head, comma, encoded = text.partition(",")
    if text.startswith("data:"):
        if not comma or not head.endswith(";base64"):
            raise DataError(f"the picture {text[:40]!r} is a data address without base64")
    elif len(text) > 200 and text.startswith(_BASE64):
        encoded = text
    else:
        return text.removeprefix("file://")
    try:
        return base64.b64decode(encoded, validate=True)
    except ValueError as error:
        raise DataError(f"the picture {text[:40]!r}.. is no base64: {error}") from error


def _png_bytes(content: bytes) -> tuple[int, int]:
    """How many bytes of rows a PNG that decodes holds before compression, and how many its header asks for."""
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", content[16:29])
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    steps = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    sizes = [(-((x - width) // dx), -((y - height) // dy)) for x, y, dx, dy in steps]
    needs = sum(rows * (1 + (columns * bits + 7) // 8) for columns, rows in sizes if columns > 0 and rows > 0)
    inflate, has, place = zlib.decompressobj(), 0, len(_PNG)
    while place + 8 <= len(content):
        size, kind = struct.unpack(">I4s", content[place : place + 8])
        if kind == b"IDAT" and not inflate.eof:
            has += len(inflate.decompress(content[place + 8 : place + 8 + size], max(0, needs - has) + 1))
            while inflate.unconsumed_tail and has < needs:
                has += len(inflate.decompress(inflate.unconsumed_tail, needs - has + 1))
        place += size + 12
    return has, needs


def _stream(source: ImageSource) -> BinaryIO:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if isinstance(source, str):
        return open_resolved(source)
    try:
        return source.open("rb")
    except FileNotFoundError as error:
        raise DataError(f"image {source} does not exist; correct the path or remove the row") from error
    except (OSError, ValueError) as error:
        raise DataError(f"image {_name(source)} can not be opened: {error}") from error


def _header(stream: BinaryIO, name: str) -> Image.Image:
    try:
        return Image.open(stream, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise DataError(f"image {name} is too large: {error}") from error
    except _DECODE_ERRORS as error:
        raise DataError(f"image {name} can not be read as one of {', '.join(FORMATS)}: {error}") from error


def _orientation(image: Image.Image) -> int:
    if image.format == "TIFF":
        return 1  # Pillow turns TIFF itself, in the header's size as well.
    # The base class's getexif: PNG's own one decodes the pixels to look for a chunk behind them.
    try:
        orientation = int(Image.Image.getexif(image).get(_ORIENTATION_TAG, 1))
        return orientation if orientation in _TRANSPOSE else 1
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
