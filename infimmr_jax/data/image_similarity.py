"""Near-equal pictures: fingerprints that survive resizing, re-encoding and margins; crops are found by trying them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, UInt8, UInt64
from PIL import Image

SIDE = 64  # pixels a picture is reduced to
KEPT = 16  # lowest frequencies kept along each axis: 256 bits
CELLS = 8  # colour cells along each axis
NEUTRAL = 10  # largest distance from grey, in chroma levels, of a picture without colour
CLOSE = 1 / 3  # share of bits from which on two pictures have nothing to do with each other
MARGIN_CONTRAST = 40  # grey levels that separate content from the margin; JPEG rings by 20 or so

CROP_SCALES = (0.92, 0.84, 0.76)
CROP_PLACES = [(x, y) for x in (0.0, 0.5, 1.0) for y in (0.0, 0.5, 1.0)]


@dataclasses.dataclass(frozen=True)
class Prints:
    """Fingerprints of n pictures: 256 bits of shape, and 8 x 8 cells of colour (the two chroma channels, 0 to 255)."""

    bits: UInt64[np.ndarray, "n words"]
    colours: UInt8[np.ndarray, "n cells"]

    def __len__(self) -> int:
        return len(self.bits)

    def __getitem__(self, chosen: slice | np.ndarray) -> Prints:
        return Prints(self.bits[chosen], self.colours[chosen])


def fingerprint(image: Image.Image) -> Prints:
    """Fingerprint of one RGB picture (n = 1).

    The bits say which low frequencies of the brightness' cosine transform are above their median (pHash); the colours
    tell apart drawings of one template. An even margin is cut off first: white space around a diagram does not count.
    """
    content = trimmed(image)
    reduced = content.convert("L").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    basis = _cosines()
    spectrum = basis @ np.asarray(reduced, np.float64) @ basis.T
    spectrum[0, 0] = 0.0  # the mean brightness
    bits: Bool[np.ndarray, "bits"] = (spectrum > np.median(spectrum)).ravel()
    cells = content.resize((CELLS, CELLS), Image.Resampling.BOX).convert("YCbCr")
    return Prints(np.packbits(bits).view(np.uint64)[None], np.asarray(cells)[:, :, 1:].reshape(1, -1))


def crop_fingerprints(image: Image.Image) -> Prints:
    """Fingerprints of the whole picture and of 27 crops of its content, to recognise a picture that is a part of it."""
    content = trimmed(image)
    width, height = content.size
    found = [fingerprint(content)]
    for scale in CROP_SCALES:
        w, h = max(1, round(width * scale)), max(1, round(height * scale))
        for place_x, place_y in CROP_PLACES:
            left, top = round((width - w) * place_x), round((height - h) * place_y)
            found.append(fingerprint(content.crop((left, top, left + w, top + h))))
    return joined(found)


def joined(prints: Sequence[Prints]) -> Prints:
    """The fingerprints of all given ones, in order."""
    none = Prints(np.zeros((0, KEPT * KEPT // 64), np.uint64), np.zeros((0, 2 * CELLS * CELLS), np.uint8))
    everything = [none, *prints]
    return Prints(np.concatenate([one.bits for one in everything]), np.concatenate([one.colours for one in everything]))


def distances(first: Prints, second: Prints) -> Float[np.ndarray, "many others"]:
    """Distance between every two fingerprints: 0 for copies, about 0.4 for unrelated pictures.

    The greater of two shares: bits that differ, and the largest difference of colour in a cell (0 where one of the
    pictures has no colour, for a grey copy is a copy). Colours are only compared where the bits are close.
    """
    counts = np.zeros((len(first), len(second)), np.int64)
    for word in range(first.bits.shape[1]):  # word by word: a block of [many, others] at a time stays small
        counts += np.bitwise_count(first.bits[:, word, None] ^ second.bits[None, :, word])
    apart = counts / (64 * first.bits.shape[1])
    coloured = [np.abs(x.colours.astype(np.int16) - 128).max(axis=1, initial=0) > NEUTRAL for x in (first, second)]
    rows, columns = np.nonzero((apart < CLOSE) & coloured[0][:, None] & coloured[1][None, :])
    for start in range(0, len(rows), 65_536):
        i, j = rows[start : start + 65_536], columns[start : start + 65_536]
        difference = np.abs(first.colours[i].astype(np.int16) - second.colours[j]).max(axis=1) / 255
        apart[i, j] = np.maximum(apart[i, j], difference)
    return apart


def trimmed(image: Image.Image) -> Image.Image:
    """The picture without the even margin around its content; a picture of nothing but margin stays as it is.

    Twice: a frame may lie around a picture that has a background of its own.
    """
    return _without_margin(_without_margin(image))


def _without_margin(image: Image.Image) -> Image.Image:
    pixels: UInt8[np.ndarray, "height width"] = np.asarray(image.convert("L"))
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    content = np.abs(pixels.astype(np.int16) - np.median(border)) > MARGIN_CONTRAST
    rows, columns = np.flatnonzero(content.any(axis=1)), np.flatnonzero(content.any(axis=0))
    if not len(rows) or not len(columns):
        return image
    return image.crop((int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1))


@functools.cache
def _cosines() -> Float[np.ndarray, "kept side"]:
    """The first rows of the orthonormal type-II discrete cosine transform."""
    k, n = np.arange(KEPT)[:, None], np.arange(SIDE)[None, :]
    rows = np.cos(np.pi * k * (2 * n + 1) / (2 * SIDE)) * np.sqrt(2 / SIDE)
    rows[0] /= np.sqrt(2)
    return rows
