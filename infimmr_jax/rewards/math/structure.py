r"""Take compound answers apart: tuples, intervals, sets, and bare lists; everything else is an atom."""

from __future__ import annotations

import dataclasses
import re

MAX_ELEMENTS = 64

_OPENERS = {"(": ")", "[": "]", "{": "}"}
_CLOSERS = frozenset(")]}")
_AND_OR = re.compile(
    r"\s*,?\s*(?:\\(?:text|mathrm)\s*\{\s*(?:and|or)\s*\}|(?<![a-zA-Z\\])(?:and|or)(?![a-zA-Z]))\s*,?\s*"
)
_THOUSANDS = re.compile(r"-?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?")
_PLUS_MINUS = re.compile(r"\\pm(?![a-zA-Z])\s*")
_MEMBER = re.compile(r"^[A-Za-z](?:_\{?[A-Za-z0-9]\}?)?\s*\\in\s+")


@dataclasses.dataclass(frozen=True)
class Structure:
    r"""Kind of an answer and its elements, as text.

    `kind` is "atom" (one element), "list" (bare, `1, 2` or `1 and 2` or `\pm 2`: order is free), "set" (`\{1, 2\}`:
    order is free) or the two brackets of an ordered one: "()", "[]", "(]", "[)". `ordered` is False for the former.
    """

    kind: str
    elements: tuple[str, ...]

    @property
    def ordered(self) -> bool:
        return self.kind not in ("atom", "list", "set")


def split_top(text: str, separators: str = ",;") -> list[str] | None:
    r"""Parts between separators outside all brackets; None when brackets do not balance.

    An interval's unequal brackets balance: any of `)` and `]` closes any of `(` and `[`; `\{` and `\}` are brackets.
    """
    parts, start, stack = [], 0, []
    for index, character in enumerate(text):
        if character in _OPENERS:
            stack.append(character)
        elif character in _CLOSERS:
            if not stack or (stack[-1] == "{") != (character == "}"):
                return None
            stack.pop()
        elif character in separators and not stack:
            # LaTeX thin spaces such as \, and \; were dropped by `latex.tidy`: a separator here is one.
            parts.append(text[start:index].strip())
            start = index + 1
    parts.append(text[start:].strip())
    return None if stack else parts


def take_apart(text: str) -> Structure:
    r"""The structure of a tidy text (see `latex.tidy`)."""
    text = _MEMBER.sub("", text.strip())
    inner, kind = _bracketed(text)
    if kind == "set":
        parts = split_top(_AND_OR.sub(",", inner))
        return Structure("set", tuple(_expand(parts))) if parts and all(parts) else Structure("atom", (text,))
    if kind:
        parts = split_top(inner)
        if parts is None or len(parts) < 2 or not all(parts) or _THOUSANDS.fullmatch(inner):
            return Structure("atom", (text,))
        return Structure(kind, tuple(parts))
    if _THOUSANDS.fullmatch(text):
        return Structure("atom", (text,))
    parts = split_top(_AND_OR.sub(",", text)) if "matrix" not in text else None
    if not parts or not all(parts):
        return Structure("atom", (text,))
    parts = _expand(parts)
    return Structure("list", tuple(parts)) if 1 < len(parts) <= MAX_ELEMENTS else Structure("atom", (text,))


def _bracketed(text: str) -> tuple[str, str]:
    """Content and kind of a text that is one bracketed group; ("", "") otherwise."""
    if text.startswith(r"\{") and text.endswith(r"\}"):
        opening, closing, kind = r"\{", r"\}", "set"
    elif text[:1] in ("(", "[") and text[-1:] in (")", "]"):
        opening, closing, kind = text[0], text[-1], text[0] + text[-1]
    else:
        return "", ""
    inner = text[len(opening) : len(text) - len(closing)]
    # (1,2) \cup (3,4) starts and ends with brackets, but they do not belong together.
    return (inner, kind) if split_top(inner, "") is not None else ("", "")


def _expand(parts: list[str]) -> list[str]:
    r"""Elements with one `\pm` as two elements."""
    expanded = []
    for part in parts:
        if len(_PLUS_MINUS.findall(part)) == 1:
            expanded += [_PLUS_MINUS.sub(sign, part).strip().removeprefix("+") for sign in ("+", "-")]
        else:
            expanded.append(part)
    return expanded
