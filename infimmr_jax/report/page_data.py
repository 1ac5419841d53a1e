"""Data of the page as JSON that stands inside it, inert."""

from __future__ import annotations

import json

from infimmr_jax.names import JsonObject

# An object of JSON: a row of a run's files, or what the page is told.
Json = JsonObject


def embed_json(value: object) -> str:
    """Write JSON that can stand in a script element: no character in it can end the element or start a comment."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    # A lone surrogate (half of a character cut by the length limit) can not be written as UTF-8.
    return text.encode("utf-8", "replace").decode("utf-8")


def page_bytes(value: object) -> int:
    """Return how many bytes of the page a value takes."""
    return len(embed_json(value).encode("utf-8"))
