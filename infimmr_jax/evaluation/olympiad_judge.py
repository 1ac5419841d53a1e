r"""OlympiadBench's automatic judge: are two answers, of one or several values, mathematically equal?

Values are numbers within a tolerance, expressions, equations (up to an integer factor) and intervals, in any order.
He et al. 2024 (arXiv:2402.14008); written anew here, with the parser of math-verify. The published comparison is not
symmetric: the first side is also tried in percent, and owns the list of tolerances. Scores come from
`inference/judge.py`, which puts the model's answer first, and so does `judge`. The examples published beside
`eval/auto_scoring_judge.py` put the gold first; `values_equal` agrees with all 36 of them in that order.
"""

from __future__ import annotations

import math
import re
from typing import Any

import sympy

from infimmr_jax.evaluation.latex_values import UnreadableLatexError, has_huge_power, parse
from infimmr_jax.rewards.extract import boxes

DEFAULT_PRECISION = 1e-8
MAX_POWER = 1000.0
_REPLACED = {"\\left": "", "\\right": "", "∶": ":", "，": ",", "$": "", "\\approx": "=", "\\simeq": "=", "\\sim": "="}
_REPLACED |= {"^\\prime": "'", "^{\\prime}": "'", "^\\circ": "", "%": ""}
_EDGES = "\n$,.:;^_=+`!@#$%^&*~，。"
_CHINESE = re.compile(r"[\u4e00-\u9fff]+")


def judge(gold: str, answer: str, precision: float | list[float] = DEFAULT_PRECISION) -> bool:
    """Is a model's `answer` right? `precision` is the absolute tolerance, or one a value in the order of the answer."""
    return values_equal(answer, gold, precision)


def values_equal(first: str, second: str, precision: float | list[float] = DEFAULT_PRECISION) -> bool:
    """Are two answers equal when numbers of `first` may be in percent and have the tolerances `precision`, in order?"""
    first, second = _tidy(_answer_part(first)), _tidy(_answer_part(second))
    if first == second:
        return True
    left = _alternatives(_split(_CHINESE.sub("", first)))
    right = _alternatives(_split(_CHINESE.sub("", second)))
    tolerances = list(precision) if isinstance(precision, list) else [precision]
    tolerances = tolerances * len(left) if len(tolerances) == 1 else tolerances
    if len(left) != len(right) or len(tolerances) < len(left):
        return False
    place = 0
    while left:
        # Values are matched greedily, so their order decides where tolerances overlap: the published one moves on
        # by one although the match has closed the gap, and goes round.
        place %= len(left)
        found = next((k for k, other in enumerate(right) if _equal(left[place], other, tolerances[place])), None)
        if found is None:
            return False
        del left[place], tolerances[place], right[found]
        place += 1
    return True


def _answer_part(text: str) -> str:
    """The contents of all boxes, else the formulas of the last line, else all of a text."""
    found = [content for _, _, content in boxes(text)]
    if not found:
        found = re.findall(r"\$(.*?)\$", text.strip().split("\n")[-1])
    return ",".join(found) if found else text


def _tidy(text: str) -> str:
    if "\\in " in text:
        text = text.split("\\in ")[1]
    for sign, replacement in _REPLACED.items():
        text = text.replace(sign, replacement)
    return re.sub(r"\\(?:mathrm|mathbf)\{~?([^}]*)\}", r"\1", text.strip(_EDGES))


def _split(text: str) -> list[str]:
    """Parts between the commas outside of brackets."""
    parts, depth, start = [], 0, 0
    for place, sign in enumerate(text):
        depth += (sign in "([") - (sign in ")]")
        if sign == "," and depth == 0:
            parts.append(text[start:place].strip())
            start = place + 1
    return [*parts, text[start:].strip()] if start < len(text) else parts


def _alternatives(parts: list[str]) -> list[str]:
    r"""Every part with `\pm` twice, once with each sign."""
    return [value for part in parts for value in _signed(part)]


def _signed(part: str) -> list[str]:
    return [part.replace("\\pm", "+"), part.replace("\\pm", "-")] if "\\pm" in part else [part]


def _equal(first: str, second: str, tolerance: float) -> bool:
    if first == second and first:
        return True
    if _is_interval(first) and _is_interval(second) and _intervals_equal(first, second, tolerance):
        return True
    if _numbers_equal(first, second, tolerance):
        return True
    if not ("=" in first and "=" in second) and _expressions_equal(first, second, tolerance):
        return True
    return _equations_equal(first, second)


def _is_interval(text: str) -> bool:
    return text.startswith(("(", "[")) and text.endswith((")", "]"))


def _intervals_equal(first: str, second: str, tolerance: float) -> bool:
    firsts, seconds = first.split("\\cup"), second.split("\\cup")
    if len(firsts) != len(seconds):
        return False
    for one, other in zip(firsts, seconds, strict=True):
        one, other = one.strip(), other.strip()
        if one[:1] != other[:1] or one[-1:] != other[-1:]:
            return False
        ends, other_ends = one.strip("[]()").split(","), other.strip("[]()").split(",")
        if len(ends) != len(other_ends):
            return False
        if not all(_expressions_equal(a, b, tolerance) for a, b in zip(ends, other_ends, strict=True)):
            return False
    return True


def _numbers_equal(first: str, second: str, tolerance: float) -> bool:
    """Decimal numbers within the tolerance, also when the first is a percentage of the second or the reverse."""
    try:
        given, reference = float(first), float(second)
    except ValueError:
        return False
    return any(abs(value - reference) <= 1.01 * tolerance for value in (given / 100, given, 100 * given))


def _expressions_equal(first: str, second: str, tolerance: float) -> bool:
    try:
        left, right = (_expression(text) for text in (first, second))
    except UnreadableLatexError:
        return False
    if left == right:
        return True
    if not isinstance(left, sympy.Expr) or not isinstance(right, sympy.Expr):
        return False
    if bool(left.free_symbols) != bool(right.free_symbols):
        return False
    try:
        if not left.free_symbols:
            if has_huge_power(left, MAX_POWER) or has_huge_power(right, MAX_POWER):
                return False
            return bool(abs(left.evalf() - right.evalf()) <= 1.01 * tolerance)
        return bool(abs(sympy.simplify(left - right).evalf()) < 1e-3)
    except (TypeError, ValueError, ArithmeticError, NotImplementedError, RecursionError):
        # An undecidable comparison is not an equality.
        return False


def _expression(text: str) -> Any:
    """Right of the first `=`, as SymPy, with pi as a number."""
    text = text.split("=")[1] if "=" in text else text
    expression = parse(_readable(text))
    if isinstance(expression, sympy.logic.boolalg.Boolean) and isinstance(expression, sympy.core.relational.Relational):
        return expression
    if not isinstance(expression, sympy.Expr) or expression.is_Matrix:
        # Tuples, sets and matrices are no expressions to the published parser: they only equal themselves as text.
        raise UnreadableLatexError(f"{text!r} is not an expression")
    return expression.subs(sympy.pi, math.pi)


def _readable(text: str) -> str:
    """Spellings that the parser takes apart differently: `\\sqrt[n] x`, a unit glued to a number, `x _1`."""
    return re.sub(r"\s+_", "_", text.strip())


def _equations_equal(first: str, second: str) -> bool:
    """Do two equations differ by an integer factor?"""
    if first.count("=") != 1 or second.count("=") != 1:
        return False
    try:
        left, right = (_left_minus_right(text) for text in (first, second))
        ratio = sympy.simplify(left / right)
        inverse = sympy.simplify(right / left)
    except (UnreadableLatexError, TypeError, ValueError, ArithmeticError, NotImplementedError, RecursionError):
        # As above: what can not be compared is not equal, and the judge goes on to say so.
        return False
    return any(bool(value.is_Integer) and value != 0 for value in (ratio, inverse))


def _left_minus_right(equation: str) -> sympy.Expr:
    left, right = (parse(_readable(side)) for side in equation.split("="))
    return sympy.simplify(left - right)
