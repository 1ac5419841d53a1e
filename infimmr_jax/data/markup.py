"""Linear-time text tools that readers and graders share: characters folded to ASCII, balanced braces, boxes."""

from __future__ import annotations

import re
import unicodedata

_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)
BOX = re.compile(r"\\boxed\s*(?=\{)")
# Full-width ASCII and the signs people type for the same thing. Superscripts and vulgar fractions are left to the
# math verifier: folding them as characters (NFKC) would turn 5² into 52 and 3½ into 31/2.
_FOLD = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_FOLD |= str.maketrans("\u3000\u00a0\u2009\u202f\u2212\u2013\u2010\u2011‘’“”、。【】￥", "    ----''\"\",.[]¥")


def fold(text: str) -> str:
    """Full-width letters, digits and signs, typographic minus, quotes and spaces as ASCII; accents composed (NFC)."""
    return text if text.isascii() else unicodedata.normalize("NFC", text.translate(_FOLD))


def matching_braces(text: str) -> dict[int, int]:
    """Index of every balanced `{` mapped to the index of its `}`; escaped braces do not count. Linear time."""
    pairs: dict[int, int] = {}
    stack: list[int] = []
    for match in _BRACES.finditer(text):
        token = match.group()
        if token == "{":
            stack.append(match.start())
        elif token == "}" and stack:
            pairs[stack.pop()] = match.start()
    return pairs


def boxes(text: str) -> list[tuple[int, int, str]]:
    r"""Start, end and content of every outermost balanced `\boxed{..}`, in order."""
    pairs = matching_braces(text)
    found: list[tuple[int, int, str]] = []
    for match in BOX.finditer(text):
        end = pairs.get(match.end())
        if end is not None and (not found or match.start() >= found[-1][1]):
            found.append((match.start(), end + 1, text[match.end() + 1 : end].strip()))
    return found


def last_boxed(text: str) -> str | None:
    r"""Content of the last balanced `\boxed{..}`, or None."""
    found = boxes(text)
    return found[-1][2] if found else None


__all__ = ["BOX", "boxes", "fold", "last_boxed", "matching_braces"]
