"""Small linear-time text tools shared by extraction, formats and verifiers."""

from __future__ import annotations

import re

from infimmr_jax.data.markup import fold, matching_braces

MAX_RESPONSE = 200_000
MAX_ANSWER = 2_000
MAX_NESTING = 40
MAX_WRAPPERS = 12

_OPENERS = {"(": ")", "[": "]", "{": "}"}
_CLOSERS = {")", "]", "}"}

_TEXT_COMMAND = re.compile(
    r"\\(?:boxed|text|textbf|textit|textrm|textnormal|mathrm|mathbf|mathit|mathsf|mbox|hbox)\s*\{"
)
_DELIMITERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("`", "`"))
_FENCE = re.compile(r"```(?:json)?\s(.*?)```", re.DOTALL)


def nesting(text: str) -> int:
    """Greatest depth of round, square and curly brackets (closing ones never go below zero)."""
    depth = deepest = 0
    for character in text:
        if character in _OPENERS:
            depth += 1
            deepest = max(deepest, depth)
        elif character in _CLOSERS and depth:
            depth -= 1
    return deepest


def unwrap(text: str) -> str:
    r"""Text without wrappers that say nothing: `$..$`, `\(..\)`, `**..**`, a whole `\text{..}`, braces, a stop."""
    text = text.strip()
    for _ in range(MAX_WRAPPERS):
        before = text
        if text.endswith(".") and not text.endswith(".."):
            text = text[:-1].rstrip()
        for opening, closing in _DELIMITERS:
            inner = text[len(opening) : len(text) - len(closing)]
            if (
                text.startswith(opening)
                and text.endswith(closing)
                and inner
                and opening not in inner.replace(r"\$", "")
            ):
                text = inner.strip()
        match = _TEXT_COMMAND.match(text)
        start = match.end() - 1 if match else 0
        if text.startswith("{", start) and matching_braces(text).get(start) == len(text) - 1:
            text = text[start + 1 : -1].strip()
        if text == before:
            break
    return text


def strip_fence(text: str) -> str:
    """Text without a Markdown code fence around it."""
    match = _FENCE.fullmatch(text.strip())
    return match[1].strip() if match else text.strip()


__all__ = ["MAX_ANSWER", "MAX_NESTING", "MAX_RESPONSE", "fold", "matching_braces", "nesting", "strip_fence", "unwrap"]
