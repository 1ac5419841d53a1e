r"""What is refused before a computer algebra system sees it: work left undone, and bombs.

An answer is refused when the gold answer has nothing of the kind: `\int_0^4 1 dx` equals 4, but the problem asked for
the 4, and a policy soon learns to copy the problem's expression into the box.
"""

from __future__ import annotations

import re

MAX_LITERAL = 60
MAX_POWER = 10_000
MAX_FACTORIAL = 999

_OPERATORS = re.compile(
    r"\\(?:sum|prod|i{1,3}nt|oint|lim|limsup|liminf|max|min|sup|inf|det|gcd|lcm|operatorname|mathop|partial|lfloor"
    r"|lceil|bmod|pmod|mod)(?![a-zA-Z])"
)
_ARITHMETIC = re.compile(r"(?:[0-9.,+\-*/=() ]|\\(?:times|cdot|div|frac)(?![a-zA-Z])|[{}])+")
_BINARY = re.compile(
    r"[0-9)}]\s*(?:[+\-*]|\\(?:times|cdot|div)(?![a-zA-Z]))|[0-9)}]\s*\(|\)\s*[0-9]|/[^/]*/|[)}]\s*/|/\s*[(\\]"
)
_LITERAL = re.compile(rf"[0-9]{{{MAX_LITERAL + 1},}}")
_EXPONENT = re.compile(r"\^\s*(?:\{\s*[+-]?\s*([0-9]+)\s*\}|([0-9]+))")
_TOWER = re.compile(r"\^\{?[^{}+\-*/=,]*\^|\^[^\^]{0,40}\^\{?\(?[0-9]*\^")
_FACTORIAL = re.compile(r"([0-9]*)\s*!(?!=)")
_BINOMIAL = re.compile(r"\\[dt]?binom|\\choose|\\brace")
_LONG_NUMBER = re.compile(r"[0-9]{5,}")
_FLOAT_EXPONENT = re.compile(r"[0-9]\s*[eE]\s*[+-]?\s*[0-9]{4,}")


def undone(gold: str, answer: str) -> str | None:
    """Why an answer is work left undone: integrals, sums or plain arithmetic where the gold answer is a value."""
    for operator in sorted(set(_OPERATORS.findall(answer))):
        if operator not in gold:
            return f"unevaluated {operator}"
    if _ARITHMETIC.fullmatch(answer) and _BINARY.search(answer) and not _BINARY.search(gold):
        return "unevaluated arithmetic"
    return None


def costly(gold: str, answer: str) -> str | None:
    """Why an answer would cost too much to evaluate: towers, large factorials, binomials, powers and literals."""
    if _LITERAL.search(answer) and not _LITERAL.search(gold):
        return f"a literal of more than {MAX_LITERAL} digits"
    if _FLOAT_EXPONENT.search(answer):
        return "an enormous decimal exponent"
    if _TOWER.search(answer.replace(" ", "")) and not _TOWER.search(gold.replace(" ", "")):
        return "a power tower"
    largest = max([MAX_POWER] + [int(a or b) for a, b in _EXPONENT.findall(gold) if len(a or b) <= MAX_LITERAL])
    for first, second in _EXPONENT.findall(answer):
        if len(first or second) > MAX_LITERAL or int(first or second) > largest:
            return "an enormous power"
    if "!" not in gold and any(
        not number or len(number) > 3 or int(number) > MAX_FACTORIAL for number in _FACTORIAL.findall(answer)
    ):
        return "an enormous or nested factorial"
    if "!!" in answer and "!!" not in gold:
        return "a double factorial"
    if _BINOMIAL.search(answer) and _LONG_NUMBER.search(answer):
        return "an enormous binomial"
    return None


__all__ = ["costly", "undone"]
