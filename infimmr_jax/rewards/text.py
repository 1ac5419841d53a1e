"""Small linear-time text tools shared by extraction, formats and verifiers."""

from __future__ import annotations

import re

MAX_RESPONSE = 200_000
MAX_ANSWER = 2_000
MAX_NESTING = 40
MAX_WRAPPERS = 12

_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)
_OPENERS = {"(": ")", "[": "]", "{": "}"}
_CLOSERS = {")", "]", "}"}

# Full-width ASCII and the signs people type for the same thing. Superscripts and vulgar fractions are left to the
# math verifier: folding them as characters (NFKC) would turn 5² into 52 and 3½ into 31/2.
_FOLD = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_FOLD |= str.maketrans("\u3000\u00a0\u2009\u202f\u2212\u2013\u2010\u2011‘’“”、。【】￥", "    ----''\"\",.[]¥")
_TEXT_COMMAND = re.compile(
    r"\\(?:boxed|text|textbf|textit|textrm|textnormal|mathrm|mathbf|mathit|mathsf|mbox|hbox)\s*\{"
)
_DELIMITERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("`", "`"))
_FENCE = re.compile(r"```(?:json)?\s(.*?)```", re.DOTALL)


def fold(text: str) -> str:
    """Full-width letters, digits and signs, typographic minus, quotes and spaces as their ASCII forms."""
    return text.translate(_FOLD)


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
