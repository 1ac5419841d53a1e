"""Small pictures drawn fast: a Pillow canvas with a drawing style, speckle, and a quick PNG encoder."""

from __future__ import annotations

import dataclasses
import functools
import random
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

SIDE = 112  # 8 x 8 patches of 14 px: 16 visual tokens after the 2 x 2 merge

RGB = tuple[int, int, int]

COLOURS: dict[str, RGB] = {
    "red": (214, 48, 40),
    "blue": (40, 90, 220),
    "green": (40, 160, 70),
    "yellow": (236, 196, 30),
    "purple": (140, 60, 180),
    "orange": (240, 130, 30),
}


@dataclasses.dataclass(frozen=True)
class Style:
    """How pictures are drawn: ranges that each picture draws its own values from.

    `background`: grey level of the paper (low, high); `noise`: amplitude of uniform speckle in grey levels;
    `shade`: relative brightness change of every colour; `raise_px`: by how much the drawing is moved up (low, high);
    `sway_px`: largest move sideways, either way.
    """

    background: tuple[int, int]
    tint: int
    noise: tuple[int, int]
    shade: float
    raise_px: tuple[int, int]
    sway_px: int


# "plain" is what the cold start sees. "shifted" moves and recolours the same scenes, so that a policy taught on
# "plain" reads them badly and reinforcement learning has perception to improve.
STYLES: dict[str, Style] = {
    "plain": Style(background=(238, 252), tint=0, noise=(2, 6), shade=0.12, raise_px=(0, 0), sway_px=0),
    "shifted": Style(background=(215, 245), tint=12, noise=(4, 12), shade=0.20, raise_px=(1, 4), sway_px=2),
}


class Canvas:
    """One picture being drawn. Coordinates are pixels of the final picture, moved by this picture's displacement
    (at most 6 px up and 3 px sideways: leave that margin); `scale` draws larger and shrinks, for smooth edges.
    """

    def __init__(self, style: Style, rng: random.Random, scale: int = 1) -> None:
        self.style, self.rng, self.scale = style, rng, scale
        grey = rng.randint(*style.background)
        paper = tuple(_byte(grey + rng.randint(-style.tint, style.tint)) for _ in range(3))
        self.paper: RGB = (paper[0], paper[1], paper[2])
        self.image = Image.new("RGB", (SIDE * scale, SIDE * scale), self.paper)
        self.pen = ImageDraw.Draw(self.image)
        self.dx = rng.randint(-style.sway_px, style.sway_px)
        self.dy = -rng.randint(*style.raise_px)

    def colour(self, name: str) -> RGB:
        """The named colour in a shade of this picture's own."""
        factor = 1.0 + self.rng.uniform(-self.style.shade, self.style.shade)
        red, green, blue = COLOURS[name]
        return (_byte(red * factor), _byte(green * factor), _byte(blue * factor))

    def ink(self, strength: float) -> RGB:
        """The paper darkened: 0 is the paper itself, 1 is black."""
        red, green, blue = self.paper
        keep = 1.0 - strength
        return (_byte(red * keep), _byte(green * keep), _byte(blue * keep))

    def line(self, x0: float, y0: float, x1: float, y1: float, fill: RGB, width: float = 1) -> None:
        """A straight line between two points."""
        self.pen.line([self._at(x0, y0), self._at(x1, y1)], fill=fill, width=max(1, round(width * self.scale)))

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: RGB | None, outline: RGB | None = None) -> None:
        """An axis-parallel rectangle, both corners included."""
        self.pen.rectangle([self._at(x0, y0), self._at(x1, y1)], fill=fill, outline=outline, width=self.scale)

    def disc(self, x: float, y: float, radius: float, fill: RGB | None, outline: RGB | None = None) -> None:
        """A disc around (x, y)."""
        corners = [self._at(x - radius, y - radius), self._at(x + radius, y + radius)]
        self.pen.ellipse(corners, fill=fill, outline=outline, width=self.scale)

    def wedge(self, x: float, y: float, radius: float, start: float, end: float, fill: RGB) -> None:
        """A slice of a disc between two angles in degrees, clockwise from the right."""
        corners = [self._at(x - radius, y - radius), self._at(x + radius, y + radius)]
        self.pen.pieslice(corners, start, end, fill=fill)

    def polygon(self, points: Sequence[tuple[float, float]], fill: RGB | None, outline: RGB | None = None) -> None:
        """A filled polygon."""
        self.pen.polygon([self._at(x, y) for x, y in points], fill=fill, outline=outline, width=self.scale)

    def text(self, x: float, y: float, text: str, fill: RGB, size: int = 10) -> None:
        """Text centred on (x, y)."""
        self.pen.text(self._at(x, y), text, fill=fill, font=_font(size * self.scale), anchor="mm")

    def _at(self, x: float, y: float) -> tuple[float, float]:
        return ((x + self.dx) * self.scale, (y + self.dy) * self.scale)

    def png(self) -> bytes:
        """Shrink to SIDE x SIDE, speckle, and encode."""
        image = self.image if self.scale == 1 else self.image.reduce(self.scale)
        amplitude = self.rng.randint(*self.style.noise)
        speckle = np.random.default_rng(self.rng.getrandbits(32)).integers(
            -amplitude, amplitude + 1, (SIDE, SIDE, 3), dtype=np.int16
        )
        return encode_png(np.clip(np.asarray(image) + speckle, 0, 255).astype(np.uint8))


def encode_png(pixels: UInt8[np.ndarray, "height width 3"]) -> bytes:
    """Encode 8-bit RGB as PNG without row filters and without compression.

    Speckle hardly compresses (38 kB become 20 kB), and most pictures live only until the next step: leaving the
    compression out makes both encoding and decoding several times faster.
    """
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # the first byte of a row names its filter: 0 is none
    rows[:, 1:] = pixels.reshape(height, -1)
    body = zlib.compress(rows.tobytes(), 0)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _byte(value: float) -> int:
    return max(0, min(255, round(value)))


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)
