"""Equality of two LaTeX answers by structure and math-verify; for grader processes only (sympy may hang).

math-verify parses, and says whether formulas, relations, sets and matrices are equal. Around it stand our own rules:
brackets and order of tuples and intervals, every side of a chain of equations, units and words, and values to 50
digits at one place, which refute what plainly differs before anything is simplified.
"""

from __future__ import annotations

import logging
import re
from fractions import Fraction
from functools import lru_cache
from typing import Any

import sympy
from latex2sympy2_extended import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify
from sympy.core.relational import Relational

from infimmr_jax.rewards.math.conditions import as_intervals
from infimmr_jax.rewards.math.equality import numbers_equal, values_equal
from infimmr_jax.rewards.math.labels import EQUALS, RELATION, strip_label
from infimmr_jax.rewards.math.latex import tidy
from infimmr_jax.rewards.math.numbers import PlainNumber, read_number, same_unit, split_unit
from infimmr_jax.rewards.math.structure import Structure, split_top, take_apart
from infimmr_jax.rewards.math.words import holds_words, is_words, solid
from infimmr_jax.rewards.verdict import Options, Verdict, compared, refused

# math-verify warns once that its own (signal based) timeouts are off: here the pool's kill is the deadline.
logging.getLogger("math_verify").setLevel(logging.CRITICAL)

DIGITS = 50
_TINY = sympy.Float(10) ** (10 - DIGITS)

_CONFIG = LatexExtractionConfig(
    boxed_match_priority=0,
    normalization_config=NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=False, boxed="all", equations=False
    ),
)
# Bare elements may come with brackets, and a tuple or a set may come without; [1, 2] is an interval, never (1, 2).
_INTERCHANGEABLE = frozenset({("list", "set"), ("list", "()"), ("list", "[]"), ("set", "list"), ("()", "list")})
_SCALED_TUPLE = re.compile(r"(?:^|[^a-zA-Z_])[-+*/0-9]\s*\([^()]*,[^()]*\)")
_SET_LIKE = re.compile(r"[=<>]|\\(?:le|ge|ne|in|cup|cap|setminus|mathbb|emptyset)(?![a-zA-Z])|\\\{")
_OR = re.compile(r"\\(?:cup|lor|vee)(?![a-zA-Z])|(?<![a-zA-Z])or(?![a-zA-Z])")
_NAME = re.compile(r"\\[a-zA-Z]+|[a-zA-Z]")
_SPARE = (r"\xi", r"\kappa", r"\tau", r"\sigma", r"\rho", r"\eta", r"\nu", r"\chi")
_PLACE = (sympy.Rational(733, 997), sympy.Rational(1327, 601), sympy.Rational(311, 1009))


@lru_cache(maxsize=4096)
def parse_latex(text: str) -> Any:
    """The sympy object a tidy LaTeX text denotes, or None when it can not be parsed."""
    if split_top(text, "") is None or "$" in text:
        return None  # the grammar would parse what stands before an unbalanced bracket
    if _SCALED_TUPLE.search(text):
        return None  # the grammar drops the factor of -(1, 2)
    found = parse(rf"\boxed{{{text}}}", [_CONFIG], parsing_timeout=None)
    return found[0] if found and not isinstance(found[0], str) else None


def compare(gold: str, answer: str, options: Options) -> Verdict:
    """Whether two answers denote the same object; an unparsable gold or answer scores 0 and says so."""
    gold, answer = tidy(gold), tidy(answer)
    if "=" not in gold:
        answer = strip_label(answer)
    if RELATION.search(gold) is None or RELATION.search(answer) is None or _OR.search(gold + answer):
        written = gold, answer
        gold, answer = as_intervals(gold), as_intervals(answer)
        # Equal texts that are no intervals go on: a gold answer is compared with itself to see whether it parses.
        if written != (gold, answer) and solid(gold) == solid(answer):
            return compared(1.0, "same intervals")
    left, right = take_apart(gold), take_apart(answer)
    if len(left.elements) == 1 and len(right.elements) == 1:
        if left.kind == right.kind == "atom":
            return _atoms(gold, answer, options)
        return _atoms(left.elements[0], right.elements[0], options)
    if left.kind == "atom" or right.kind == "atom":
        if {left.kind, right.kind} & {"list", "set"}:  # sympy would make one element of 0, 0
            return compared(0.0, f"{len(right.elements)} elements instead of {len(left.elements)}")
        if {left.kind, right.kind} != {"atom"} and not _SET_LIKE.search(gold if left.kind == "atom" else answer):
            # sympy takes [a, a] for a, and the grammar drops what stands around a tuple: (1, 2)^2, \frac{(1, 2)}{3}.
            return compared(0.0, "brackets against none")
        return _atoms(gold, answer, options)
    return _compounds(left, right, options)


def _compounds(gold: Structure, answer: Structure, options: Options) -> Verdict:
    """Compare element by element, in order where the gold or the answer has one."""
    if len(gold.elements) != len(answer.elements):
        return compared(0.0, f"{len(answer.elements)} elements instead of {len(gold.elements)}")
    if gold.kind != answer.kind and (gold.kind, answer.kind) not in _INTERCHANGEABLE:
        return compared(0.0, f"brackets differ: {answer.kind} instead of {gold.kind}")
    labelled = any("=" in element for element in gold.elements) and not any("=" in e for e in answer.elements)
    if gold.ordered or answer.ordered or labelled:
        for left, right in zip(gold.elements, answer.elements, strict=True):
            verdict = compare(left, right, options)
            if verdict.score < 1:
                return Verdict(0.0, verdict.code, f"element: {verdict.reason}")
        return compared(1.0, "all elements equal, in order")
    left_over = list(answer.elements)
    for element in gold.elements:
        match = next((e for e in left_over if compare(element, e, options).score == 1), None)
        if match is None:
            return compared(0.0, "an element is missing")
        left_over.remove(match)
    return compared(1.0, "all elements equal")


def _atoms(gold: str, answer: str, options: Options) -> Verdict:
    left, right = read_number(gold), read_number(answer)
    if left and right:
        equal = numbers_equal(left, right, options.relative_tolerance)
        return compared(float(equal), "numbers equal" if equal else "numbers differ")
    if solid(gold) == solid(answer):
        return (
            compared(1.0, "same text") if parse_latex(gold) is not None else Verdict(0.0, "bad_gold", "unparsable gold")
        )
    if is_words(gold) or is_words(answer):
        return compared(0.0, "words differ")
    (gold, gold_unit), (answer, answer_unit) = split_unit(gold), split_unit(answer)
    if gold_unit and answer_unit and not same_unit(gold_unit, answer_unit):
        return compared(0.0, f"unit {answer_unit} instead of {gold_unit}")
    if holds_words(answer) and not holds_words(gold):
        return refused("words in a formula")
    if EQUALS.search(answer) and not RELATION.search(gold):
        return _chain(gold, answer, options)
    return _expressions(gold, answer, options)


def _chain(gold: str, answer: str, options: Options) -> Verdict:
    r"""`x = 2 \cdot 3 = 6` for gold 6: the left end may name what is asked for, every other side must be equal."""
    sides = [side.strip() for side in EQUALS.split(answer)]
    first_is_label = strip_label(f"{sides[0]} = 1") == "1"
    for side in sides[1:] if first_is_label else sides:
        verdict = compare(gold, side, options) if side else Verdict(0.0, "bad_answer", "empty")
        if verdict.score < 1:
            return Verdict(0.0, verdict.code, f"a side of the equation: {verdict.reason}")
    return compared(1.0, "every side of the equation is equal")


def _expressions(gold: str, answer: str, options: Options) -> Verdict:
    gold, answer = _capitals_apart(gold, answer)
    gold_value, answer_value = parse_latex(gold), parse_latex(answer)
    if gold_value is None:
        return Verdict(0.0, "bad_gold", "unparsable gold")
    if answer_value is None:
        return Verdict(0.0, "bad_answer", "unparsable answer")
    if _values_agree(gold, gold_value, answer, answer_value, options):
        return compared(1.0, "values equal")
    # Numbers first: math-verify simplifies differences, which is slow for what is plainly different. They refute only:
    # 2^{4950} and 2^{4950} + 1 agree to any number of digits one cares to compute.
    if _differ_numerically(gold_value, answer_value):
        return compared(0.0, "values differ")
    if not verify(gold_value, answer_value, allow_set_relation_comp=True, timeout_seconds=None):
        return compared(0.0, "math-verify: different")
    relations = isinstance(gold_value, Relational) and isinstance(answer_value, Relational)
    if relations and not gold_value.free_symbols == answer_value.free_symbols != set():
        # math-verify solves both: without a solution, x^2 = -1 and 0 = 1 are alike.
        return refused("an equation in other variables")
    return compared(1.0, "math-verify: equal")


def _capitals_apart(gold: str, answer: str) -> tuple[str, str]:
    r"""Gold and answer with other names for capitals whose small letter the gold has too.

    The parser folds case, so that R^2 - r^2 would be 0; where the gold has one of the two, R and r may stand for it.
    """
    letters = {name for name in _NAME.findall(gold) if len(name) == 1}
    capitals = sorted(letter for letter in letters if letter.isupper() and letter.lower() in letters)
    unused = [name for name in _SPARE if name not in gold + answer]
    names = dict(zip(capitals, unused, strict=False))
    first, second = (
        _NAME.sub(lambda match: f"{names[match[0]]} " if match[0] in names else match[0], text)
        for text in (gold, answer)
    )
    return first, second


def _values_agree(gold: str, gold_value: Any, answer: str, answer_value: Any, options: Options) -> bool:
    """Whether one side is a decimal (or a tolerance is set) and the values agree by the rule of plain numbers."""
    left, right = read_number(gold), read_number(answer)
    written = [number for number in (left, right) if number is not None and number.decimals is not None]
    if (not written and not options.relative_tolerance) or any(n is not None and n.percent for n in (left, right)):
        return False
    exact_left, exact_right = _fraction(left, gold_value), _fraction(right, answer_value)
    if exact_left is None or exact_right is None:
        return False
    return values_equal(
        exact_left,
        left.decimals if left else None,
        exact_right,
        right.decimals if right else None,
        options.relative_tolerance,
    )


def _fraction(number: PlainNumber | None, value: Any) -> Fraction | None:
    """The value of a plain number, or of a real expression without variables to 50 digits; None for anything else."""
    if number is not None:
        return number.value
    if not isinstance(value, sympy.Expr) or value.free_symbols:
        return None
    approximate = value.evalf(50)
    return Fraction(str(approximate)) if isinstance(approximate, sympy.Float | sympy.Integer) else None


def _differ_numerically(gold: Any, answer: Any) -> bool:
    """Whether two expressions in the same variables differ at a fixed place, beyond any doubt of rounding."""
    if not (isinstance(gold, sympy.Expr) and isinstance(answer, sympy.Expr)):
        return False
    percent = gold.has(sympy.UnevaluatedExpr) or answer.has(sympy.UnevaluatedExpr)
    if percent or gold.free_symbols != answer.free_symbols or len(gold.free_symbols) > len(_PLACE):
        return False
    place = dict(zip(sorted(gold.free_symbols, key=str), _PLACE, strict=False))
    try:
        left, right = gold.subs(place).evalf(DIGITS), answer.subs(place).evalf(DIGITS)
    except OverflowError:
        return False
    if not (left.is_number and right.is_number and left.is_finite and right.is_finite):
        return False
    size = max(abs(left), abs(right))
    # Both too near to 0: a difference could be rounding.
    return bool(size > _TINY and abs(left - right) > _TINY * size)
