"""Words in mathematical answers, and texts without spaces."""

from __future__ import annotations

import re

_COMMAND = re.compile(r"\\[a-zA-Z]+")
_STYLED = re.compile(r"\\(?:text|textbf|textit|textrm|textnormal|mathrm|mathbf|mbox|hbox)\s*\{([^{}]*)\}")
_JOINED = re.compile(r"\\text\s*\{\s*(?:and|or)\s*\}|(?<![a-zA-Z\\])and(?![a-zA-Z])|\\(?:begin|end)\s*\{[a-z]*matrix\}")
_WORD = re.compile(r"[A-Za-z]{3,}")
_FUNCTIONS = frozenset(
    ("sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "log", "exp")
)
_MATH_SIGN = re.compile(r"[0-9=<>+*/^_\\]")
_NAMES = re.compile(
    r"\\(?:text|mathrm|textrm|mbox|mathbb)\s*\{[^{}]*\}|\\[a-zA-Z]+|(?<![a-zA-Z])(?:arc)?(?:sin|cos|tan|cot|sec|csc|log|ln|exp"
    r"|sqrt|and|or)(?![a-zA-Z])"
)
# i and e are constants; words of three letters and more (the matrix of \begin{matrix}) are dealt with elsewhere.
_VARIABLE = re.compile(r"(?<![a-zA-Z])(?:[a-df-hj-zA-Z]|[a-zA-Z]{2})(?![a-zA-Z])")
_GREEK = re.compile(
    r"\\(?:var)?(alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|rho|sigma|tau|upsilon|phi|chi"
    r"|psi|omega|Gamma|Delta|Theta|Lambda|Xi|Pi|Sigma|Upsilon|Phi|Psi|Omega)(?![a-zA-Z])"
)


def is_words(text: str) -> bool:
    r"""Whether a gold answer is a word or a phrase (`\text{August}`, `east`), to be compared as text."""
    bare = _JOINED.sub(",", _STYLED.sub(r" \1 ", text))
    return bool(_WORD.search(bare)) and not _MATH_SIGN.search(bare)


def holds_words(text: str) -> bool:
    """Whether an answer holds words (three letters or more) that are no functions: it is not a formula."""
    bare = _COMMAND.sub(" ", _STYLED.sub(r" \1 ", _JOINED.sub(",", text)))
    return any(word.lower() not in _FUNCTIONS for word in _WORD.findall(bare))


def solid(text: str) -> str:
    """A tidy text without spaces: two answers with equal solid forms are the same answer."""
    return "".join(text.split())


def variables(text: str) -> set[str]:
    """The single-letter variables of a formula (case folded, as math-verify does) and its Greek ones."""
    names = _VARIABLE.findall(_NAMES.sub(" ", text))
    return ({letter for name in names for letter in name.lower()} - {"e", "i"}) | set(_GREEK.findall(text))
