"""Near-equal pictures: a perceptual hash that survives resizing, re-encoding and margins, and crops by trying them."""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Bool, Float, UInt8, UInt64
from PIL import Image

SIDE = 64  # pixels a picture is reduced to
KEPT = 16  # lowest frequencies kept along each axis: 256 bits
WORDS = KEPT * KEPT // 64
MARGIN_CONTRAST = 40  # grey levels that separate content from the margin; JPEG rings by 20 or so

CROP_SCALES = (0.92, 0.84, 0.76)
CROP_PLACES = [(x, y) for x in (0.0, 0.5, 1.0) for y in (0.0, 0.5, 1.0)]


def fingerprint(image: Image.Image) -> UInt64[np.ndarray, "words"]:
    """256 bits of an RGB picture: which low frequencies of its cosine transform are above their median (pHash).

    An even margin is cut off first, so that white space around a diagram does not count.
    """
    reduced = _trimmed(image.convert("L")).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    basis = _cosines()
    spectrum = basis @ np.asarray(reduced, np.float64) @ basis.T
    spectrum[0, 0] = 0.0  # the mean brightness
    bits: Bool[np.ndarray, "bits"] = (spectrum > np.median(spectrum)).ravel()
    return np.packbits(bits).view(np.uint64)


def crop_fingerprints(image: Image.Image) -> UInt64[np.ndarray, "crops words"]:
    """Fingerprints of the whole picture and of 27 crops of its content, to recognise a picture that is a part of it."""
    content = _trimmed(image.convert("L"))
    width, height = content.size
    found = [fingerprint(content)]
    for scale in CROP_SCALES:
        w, h = max(1, round(width * scale)), max(1, round(height * scale))
        for place_x, place_y in CROP_PLACES:
            left, top = round((width - w) * place_x), round((height - h) * place_y)
            found.append(fingerprint(content.crop((left, top, left + w, top + h))))
    return np.stack(found)


def distances(
    first: UInt64[np.ndarray, "many words"], second: UInt64[np.ndarray, "others words"]
) -> Float[np.ndarray, "many others"]:
    """Share of bits that differ between every two fingerprints: 0 for copies, about 0.4 for unrelated pictures."""
    counts = np.zeros((len(first), len(second)), np.int64)
    for word in range(first.shape[1]):  # word by word: a block of [many, others] at a time stays small
        counts += np.bitwise_count(first[:, word, None] ^ second[None, :, word])
    return counts / (64 * first.shape[1])


def _trimmed(grey: Image.Image) -> Image.Image:
    pixels: UInt8[np.ndarray, "height width"] = np.asarray(grey)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    content = np.abs(pixels.astype(np.int16) - np.median(border)) > MARGIN_CONTRAST
    rows, columns = np.flatnonzero(content.any(axis=1)), np.flatnonzero(content.any(axis=0))
    if not len(rows) or not len(columns):
        return grey
    return grey.crop((int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1))


@functools.cache
def _cosines() -> Float[np.ndarray, "kept side"]:
    """The first rows of the orthonormal type-II discrete cosine transform."""
    k, n = np.arange(KEPT)[:, None], np.arange(SIDE)[None, :]
    rows = np.cos(np.pi * k * (2 * n + 1) / (2 * SIDE)) * np.sqrt(2 / SIDE)
    rows[0] /= np.sqrt(2)
    return rows
