r"""What an answer is called (`x = ..`, `|AB| = ..`, `f(2) = ..`), and the signs between the sides of an equation."""

from __future__ import annotations

import itertools
import re

from infimmr_jax.rewards.math.words import variables

EQUALS = re.compile(r"(?<![<>!\\])=|\\approx(?![a-zA-Z])")
RELATION = re.compile(r"[=<>]|\\(?:le|ge|ne|lt|gt|approx)(?![a-zA-Z])")

_GREEK = (
    r"\\(?:var)?(?:alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|rho|sigma|tau|phi|chi|psi"
    r"|omega|Delta|Omega|ell)(?![a-zA-Z]) ?"
)
_SUBSCRIPT = r"(?:_\{[^{}=<>]{1,30}\}|_(?:[A-Za-z0-9]|\\[a-zA-Z]+ ?[A-Z]{0,4}))"
_ARROW = r"\\(?:vec|overrightarrow|overline|bar|hat|widehat|dot|mathbf)"
_POINTS = rf"(?:[A-Z]{{2,4}}|{_ARROW}\s*(?:\{{\s*[A-Za-z]{{1,4}}\s*\}}|[A-Za-z]))"
_ANGLE = r"(?:m ?)?\\(?:measured)?angle ?[A-Z0-9]{1,3}"
# A function of one capital letter or of f, g, h is called with anything; of another, with a name or a number alone.
_CALLED = r"\((?:[^()<>]|\([^()<>]*\)){1,40}\)"
_FUNCTION = (
    rf"(?:[fghFGHPE](?:'{{1,3}}|\^\{{(?:-1|\([a-z0-9]\))\}})?{_SUBSCRIPT}?{_CALLED}"
    rf"|[A-Za-z]'{{0,2}}\([a-zA-Z]\)|[A-Z]\([0-9]{{1,4}}\)|\\(?:text|mathrm|operatorname)\{{[A-Z][a-z]{{1,3}}\}}{_CALLED})"
)
_RATIO_OF_ANGLE = (
    rf"\\(?:sin|cos|tan|cot|sec|csc)\s*(?:\(\s*)?(?:[A-Za-z]|{_GREEK}|\\angle ?[A-Z0-9]{{1,3}}|\{{[A-Za-z]\}})\s*\)?"
)
_NAME = re.compile(
    rf"(?:[A-Za-z]{_SUBSCRIPT}?'{{0,2}}|(?:{_GREEK}){_SUBSCRIPT}?'?|[A-Z]{{2,4}}"
    rf"|[a-zA-Z]?\([a-zA-Z](?:, ?[a-zA-Z]){{0,3}}\)"
    rf"|{_FUNCTION}|{_RATIO_OF_ANGLE}|{_ANGLE}|{_POINTS}{_SUBSCRIPT}?"
    rf"|(?:\\?\||\\[lr]?[vV]ert ?){_POINTS}(?:\\?\||\\[lr]?[vV]ert ?)|\[[A-Z]{{3,6}}\]"
    rf"|\\frac\{{d[a-z]\}}\{{d[a-z]\}}|d[a-z]/d[a-z]"
    r")"
)
_WORDS = re.compile(r"(?:\\(?:text|mathrm)\{)?([A-Za-z][A-Za-z ]{2,29})\}?(?:\s*\\(?:triangle|angle) ?[A-Z]{1,4})?")
_SHORT_WORDS = frozenset(("a", "of", "the", "sum", "age", "gcd", "lcm", "in", "to", "is", "at", "or"))
_DENIAL = re.compile(r"\b(?:not|never|cannot|wrong|false|incorrect)\b", re.IGNORECASE)
_BRACKETS = {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}
# Other writings of one label: |AB|, \overline{AB} and AB; m\angle A and \angle A.
_DRESS = re.compile(r"\\(?:overline|bar|text|mathrm|left|right|lvert|rvert|vert|measured)(?![a-zA-Z])|[|{}\s]")
_OF_X = re.compile(r"(?:y|[fghy]\([a-z]\))")


def sides(text: str) -> list[str]:
    """The sides of an equation, or the text as its only one; an equals sign in brackets (`P(X=2)`) is none of it."""
    if "=" not in text and r"\approx" not in text:
        return [text]
    parts, depth, start, position = [], 0, 0, 0
    for match in EQUALS.finditer(text):
        depth += sum(_BRACKETS.get(character, 0) for character in text[position : match.start()])
        position = match.end()
        if depth == 0:
            parts.append(text[start : match.start()].strip())
            start = match.end()
    return [*parts, text[start:].strip()]


def is_label(text: str) -> bool:
    r"""Whether a left side only names what is asked for: `x`, `a_n`, `AB`, `|AB|`, `f(2)`, `P(X=2)`, `\cos A`, words.

    Anything with an operation in it says something about its letters, and is none: `xy`, `x+y`, `|x|`, `AB^2`.
    """
    text = text.strip()
    if _NAME.fullmatch(text):
        return True
    words = _WORDS.fullmatch(text)
    return words is not None and not _DENIAL.search(text) and all(_is_word(word) for word in words[1].split())


def _is_word(word: str) -> bool:
    """Whether letters are a word and no product of variables: `abc`, `xyz` and `mn` are products."""
    if len(word) < 4:
        return word.lower() in _SHORT_WORDS
    steps = {ord(second) - ord(first) for first, second in itertools.pairwise(word)}
    return bool(re.search("[aeiouyAEIOUY]", word)) and not steps <= {1, 2}


def split_label(text: str) -> tuple[str, str]:
    """The label and the value of `label = value`; ("", text) where there is no label or more than one equals sign."""
    parts = sides(text)
    if len(parts) != 2 or not parts[1] or re.search(r"[<>]", text) or not is_label(parts[0]):
        return "", text
    return parts[0], parts[1]


def strip_label(text: str) -> str:
    """The right side of `x = ...` when the left side only names what is asked for."""
    return split_label(text)[1]


def last_side(text: str) -> str:
    r"""What stands behind the last equals sign: `x = 2 \cdot 3 = 6` comes to 6."""
    return sides(text)[-1]


def same_label(first: str, second: str) -> bool:
    """Whether two labels name one thing: `AB` and `|AB|`, `y` and `f(x)`."""
    first, second = _DRESS.sub("", first), _DRESS.sub("", second)
    if "angle" in first + second:
        first, second = (label.removeprefix("m") for label in (first, second))
    return first == second or (_OF_X.fullmatch(first) is not None and _OF_X.fullmatch(second) is not None)


def without_labels(gold: str, answer: str) -> tuple[str, str, str]:
    """Gold and answer without the labels that say the same, and why the two can not be compared ("" when they can).

    The gold's label may be left out or repeated by the answer. An answer that is no equation does not answer an
    equation without a label (`12` to `xy = 12`); one that is not solved does not answer a solved one (`x + 7 = 12` to
    `x = 5`).
    """
    label, value = split_label(gold)
    others = sides(answer)
    if not label:
        if len(sides(gold)) == 2 and len(others) == 1 and not RELATION.search(answer):
            return gold, answer, "the right side of an equation"
        return gold, answer, ""
    if len(others) == 1:
        return (value, answer, "") if not RELATION.search(answer) else (gold, answer, "")
    if same_label(label, others[0]):
        about = r"\approx" in answer and r"\approx" not in gold and variables(value)
        return value, answer, "an approximate relation" if about else ""
    if not variables(value):
        return gold, answer, "another equation than the solved one"
    return gold, answer, ""
