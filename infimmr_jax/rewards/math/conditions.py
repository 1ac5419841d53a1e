r"""Solved conditions as intervals: `x < -5 \text{ or } 7 \le x` and `\{x \mid x > 3\}` become unions of intervals."""

from __future__ import annotations

import dataclasses
import re

_BUILDER = re.compile(
    r"\\\{\s*(?P<head>[a-zA-Z]|\([a-zA-Z](?:\s*,\s*[a-zA-Z]){1,3}\))\s*(?:\\in\s*(?P<domain>[^|:]*?))?"
    r"(?:\\mid(?![a-zA-Z])|:|\||\\vert(?![a-zA-Z]))\s*(?P<body>.*)\\\}",
    re.DOTALL,
)
_REALS = re.compile(r"(?:\\(?:mathbb|mathbf)\s*\{?R\}?|R)?\s*")
_OR = re.compile(
    r"\s*,?\s*(?:\\(?:text|mathrm)\s*\{\s*or\s*\}|(?<![a-zA-Z\\])or(?![a-zA-Z])|\\(?:cup|lor|vee)(?![a-zA-Z]))\s*"
)
_MEMBER = re.compile(r"([a-zA-Z])\s*,?\s*\\in\s*\\(?:mathbb|mathbf)\s*\{?R\}?")
_SIGN = re.compile(r"(<|>|=|\\(?:le|ge|lt|gt|ne)(?![a-zA-Z]))")
_VARIABLE = re.compile(r"[a-zA-Z]|\\(?:theta|alpha|beta|lambda|phi)")
_TURNED = {"<": ">", ">": "<", "le": "ge", "ge": "le", "ne": "ne", "=": "="}


@dataclasses.dataclass(frozen=True)
class Builder:
    r"""A set by condition, `\{head \in domain \mid body\}`; `domain` is "" for the reals and where none is given."""

    head: str
    domain: str
    body: str


def builder_of(text: str) -> Builder | None:
    """A tidy text as a set by condition, None when it is none."""
    match = _BUILDER.fullmatch(text)
    if match is None:
        return None
    domain = (match["domain"] or "").strip()
    return Builder(match["head"].replace(" ", ""), "" if _REALS.fullmatch(domain) else domain, match["body"].strip())


def solved(text: str) -> tuple[str, str] | None:
    """The variable of a solved condition ("" for the bound one of a set) and the intervals that it stands for."""
    builder = builder_of(text)
    if builder and builder.domain:
        return None
    parts = [_interval(part.strip()) for part in _OR.split(builder.body if builder else text)]
    ranges = [part for part in parts if part is not None]
    variables = {variable for variable, _ in ranges}
    if len(ranges) < len(parts) or len(variables) != 1 or (builder and variables != {builder.head}):
        return None
    points = [interval for _, interval in ranges if interval.startswith(r"\{")]
    if points and not builder:
        return None  # x = 3 is an equation
    if len(points) == len(ranges):
        return "", rf"\{{{', '.join(point[2:-2] for point in points)}\}}"
    return "" if builder else variables.pop(), r" \cup ".join(interval for _, interval in ranges)


def as_intervals(text: str) -> str:
    r"""A tidy text with its solved conditions in one variable written as intervals; any other text as it is."""
    condition = solved(text)
    return text if condition is None else condition[1]


def _interval(part: str) -> tuple[str, str] | None:
    """Variable and interval of one condition such as `x < 3`, `3 > x`, `1 < x <= 5` or `x != 2`."""
    member = _MEMBER.fullmatch(part)
    if member:
        return member[1], r"(-\infty,\infty)"
    pieces = _SIGN.split(part)
    ends = [side.strip() for side in pieces[::2]]
    signs = [sign.strip("\\").replace("lt", "<").replace("gt", ">") for sign in pieces[1::2]]
    if len(ends) == 3 and _VARIABLE.fullmatch(ends[1]):
        low, variable, high = ends
        if signs[0] in (">", "ge"):
            low, high, signs = high, low, [_TURNED[sign] for sign in reversed(signs)]
        if signs[0] not in ("<", "le") or signs[1] not in ("<", "le") or not low or not high:
            return None
        return variable, f"{'(' if signs[0] == '<' else '['}{low},{high}{')' if signs[1] == '<' else ']'}"
    if len(ends) != 2 or not all(ends):
        return None
    (left, right), sign = ends, signs[0]
    if _VARIABLE.fullmatch(right) and not _VARIABLE.fullmatch(left):
        left, right, sign = right, left, _TURNED[sign]
    if not _VARIABLE.fullmatch(left) or re.search(rf"(?<![a-zA-Z\\]){re.escape(left)}(?![a-zA-Z])", right):
        return None
    if sign == "=":
        return left, rf"\{{{right}\}}"
    if sign == "ne":
        return left, rf"(-\infty,{right}) \cup ({right},\infty)"
    if sign in ("<", "le"):
        return left, rf"(-\infty,{right}{')' if sign == '<' else ']'}"
    return left, rf"{'(' if sign == '>' else '['}{right},\infty)"
