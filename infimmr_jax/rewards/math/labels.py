r"""What an answer is called (`x = ..`), and the signs between the sides of an equation."""

from __future__ import annotations

import re

EQUALS = re.compile(r"(?<![<>!\\])=|\\approx(?![a-zA-Z])")
RELATION = re.compile(r"[=<>]|\\(?:le|ge|ne|lt|gt|approx)(?![a-zA-Z])")
_LABEL = re.compile(
    r"^(?!.*\b(?:[Nn]ot|[Nn]ever|[Cc]annot|[Ww]rong|[Ff]alse|[Ii]ncorrect)\b)"
    r"(?:[A-Za-z](?:_\{?[A-Za-z0-9]{1,3}\}?)?'?|[A-Z]{2,3}|"
    r"[a-zA-Z]?\([a-zA-Z](?:, ?[a-zA-Z]){0,3}\)|m?\\angle ?[A-Z0-9]{1,3}"
    r"|\\[a-z]{2,7} ?|(?:\\text\{)?[A-Za-z ]{3,30}\}?)\s*(?:=|\\approx)\s*(?=[^=<>]*$)"
)


def strip_label(text: str) -> str:
    """The right side of `x = ...` when the left side only names what is asked for."""
    return _LABEL.sub("", text, count=1)


def last_side(text: str) -> str:
    """What stands behind the last equals sign: `x = 2 \\cdot 3 = 6` comes to 6."""
    return EQUALS.split(text)[-1].strip()
