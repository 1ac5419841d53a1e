r"""Solved conditions as intervals: `x < -5 \text{ or } 7 \le x` and `\{x \mid x > 3\}` become unions of intervals."""

from __future__ import annotations

import re

_BUILDER = re.compile(
    r"\\\{\s*([a-zA-Z])\s*(?:\\in\s*\\(?:mathbb|mathbf)\s*\{?R\}?\s*)?(?:\\mid(?![a-zA-Z])|:|\|)\s*(.*)\\\}", re.DOTALL
)
_OR = re.compile(
    r"\s*,?\s*(?:\\(?:text|mathrm)\s*\{\s*or\s*\}|(?<![a-zA-Z\\])or(?![a-zA-Z])|\\(?:cup|lor|vee)(?![a-zA-Z]))\s*"
)
_SIGN = re.compile(r"(<|>|\\(?:le|ge|lt|gt)(?![a-zA-Z]))")
_VARIABLE = re.compile(r"[a-zA-Z]|\\(?:theta|alpha|beta|lambda|phi)")
_TURNED = {"<": ">", ">": "<", "le": "ge", "ge": "le"}


def as_intervals(text: str) -> str:
    r"""A tidy text with its solved conditions in one variable written as intervals; any other text as it is."""
    builder = _BUILDER.fullmatch(text)
    parts = _OR.split(builder[2] if builder else text)
    found = [_interval(part.strip()) for part in parts]
    variables = {variable for variable, _ in filter(None, found)}
    if None in found or len(variables) > 1 or (builder and variables != {builder[1]}):
        return text
    return r" \cup ".join(interval for _, interval in filter(None, found))


def _interval(part: str) -> tuple[str, str] | None:
    """Variable and interval of one condition such as `x < 3`, `3 > x` or `1 < x <= 5`."""
    pieces = _SIGN.split(part)
    sides = [side.strip() for side in pieces[::2]]
    signs = [sign.strip("\\").replace("lt", "<").replace("gt", ">") for sign in pieces[1::2]]
    if len(sides) == 3 and _VARIABLE.fullmatch(sides[1]):
        low, variable, high = sides
        if signs[0] in (">", "ge"):
            low, high, signs = high, low, [_TURNED[sign] for sign in reversed(signs)]
        if signs[0] not in ("<", "le") or signs[1] not in ("<", "le") or not low or not high:
            return None
        return variable, f"{'(' if signs[0] == '<' else '['}{low},{high}{')' if signs[1] == '<' else ']'}"
    if len(sides) != 2 or not all(sides):
        return None
    (left, right), sign = sides, signs[0]
    if _VARIABLE.fullmatch(right):
        left, right, sign = right, left, _TURNED[sign]
    if not _VARIABLE.fullmatch(left) or re.search(rf"(?<![a-zA-Z\\]){re.escape(left)}(?![a-zA-Z])", right):
        return None
    if sign in ("<", "le"):
        return left, rf"(-\infty,{right}{')' if sign == '<' else ']'}"
    return left, rf"{'(' if sign == '>' else '['}{right},\infty)"
