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

import sympy
from latex2sympy2_extended import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify
from sympy.core.relational import Relational

from infimmr_jax.rewards.math.conditions import Builder, builder_of, solved
from infimmr_jax.rewards.math.equality import compare_numbers, values_equal
from infimmr_jax.rewards.math.equations import relations_agree
from infimmr_jax.rewards.math.expressions import Expression, read_expression
from infimmr_jax.rewards.math.labels import RELATION, is_label, last_side, sides, split_label, without_labels
from infimmr_jax.rewards.math.latex import tidy
from infimmr_jax.rewards.math.measures import unit_fits
from infimmr_jax.rewards.math.numbers import PlainNumber, read_number, split_unit
from infimmr_jax.rewards.math.refusals import undone
from infimmr_jax.rewards.math.structure import Structure, split_top, take_apart
from infimmr_jax.rewards.math.values import agree
from infimmr_jax.rewards.math.words import holds_words, is_words, solid
from infimmr_jax.rewards.verdict import Options, Verdict, compared, refused

# math-verify warns once that its own (signal based) timeouts are off: here the pool's kill is the deadline.
logging.getLogger("math_verify").setLevel(logging.CRITICAL)

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


@lru_cache(maxsize=4096)
def parse_latex(text: str) -> Expression:
    """The sympy object a tidy LaTeX text denotes, or None when it can not be parsed."""
    if split_top(text, "") is None or "$" in text:
        return None  # the grammar would parse what stands before an unbalanced bracket
    if _SCALED_TUPLE.search(text):
        return None  # the grammar drops the factor of -(1, 2)
    expression = read_expression(text)
    if expression is not None:
        return expression
    found = parse(rf"\boxed{{{text}}}", [_CONFIG], parsing_timeout=None)
    return found[0] if found and not isinstance(found[0], str) else None


def compare(gold: str, answer: str, options: Options) -> Verdict:
    """Whether two answers denote the same object; an unparsable gold or answer scores 0 and says so."""
    gold, answer = tidy(gold), tidy(answer)
    gold, answer, why = without_labels(gold, answer)
    if why and take_apart(gold).kind == "atom":
        return refused(why)
    verdict = _conditions(gold, answer, options)
    if verdict is not None:
        return verdict
    left, right = take_apart(gold), take_apart(answer)
    if len(left.elements) == 1 and len(right.elements) == 1:
        return _atoms(left.elements[0], right.elements[0], options)
    if left.kind == "atom" or right.kind == "atom":
        if {left.kind, right.kind} & {"list", "set"}:  # sympy would make one element of 0, 0
            return compared(0.0, f"{len(right.elements)} elements instead of {len(left.elements)}")
        if {left.kind, right.kind} != {"atom"} and not _SET_LIKE.search(gold if left.kind == "atom" else answer):
            # sympy takes [a, a] for a, and the grammar drops what stands around a tuple: (1, 2)^2, \frac{(1, 2)}{3}.
            return compared(0.0, "brackets against none")
        return _atoms(gold, answer, options)
    return _compounds(left, right, options)


def _conditions(gold: str, answer: str, options: Options) -> Verdict | None:
    r"""Compare solved conditions and sets by condition as intervals; None where neither side is one.

    `x > 3`, `\{x \mid x > 3\}` and `(3, \infty)` are one answer; `x > 3` and `y > 3` are two.
    """
    left_set, right_set = builder_of(gold), builder_of(answer)
    left = solved(gold) if left_set or RELATION.search(gold) else None
    right = solved(answer) if right_set or RELATION.search(answer) else None
    if left is None and right is None:
        if left_set and right_set:
            return _builders(left_set, right_set, options)
        return None
    if left and right and left[0] and right[0] and left[0] != right[0]:
        return compared(0.0, "a condition on another variable")
    written = left[1] if left else gold, right[1] if right else answer
    if solid(written[0]) == solid(written[1]):
        return compared(1.0, "same intervals")
    if RELATION.search(written[0]) or RELATION.search(written[1]):
        return None  # one is not solved
    return compare(*written, options)


def _builders(gold: Builder, answer: Builder, options: Options) -> Verdict:
    """Compare two sets by condition that are no intervals: the same variables and domain, and conditions alike."""
    if (gold.head, solid(gold.domain)) != (answer.head, solid(answer.domain)):
        return compared(0.0, "a set over other variables or another domain")
    if solid(gold.body) == solid(answer.body):
        return compared(1.0, "same condition")
    return compare(gold.body, answer.body, options)


def _compounds(gold: Structure, answer: Structure, options: Options) -> Verdict:
    """Compare element by element, in order where the gold or the answer has one."""
    if len(gold.elements) != len(answer.elements):
        return compared(0.0, f"{len(answer.elements)} elements instead of {len(gold.elements)}")
    if gold.kind != answer.kind and (gold.kind, answer.kind) not in _INTERCHANGEABLE:
        return compared(0.0, f"brackets differ: {answer.kind} instead of {gold.kind}")
    golds, answers, labelled = _in_order_of_labels(list(gold.elements), list(answer.elements))
    if gold.ordered or answer.ordered or labelled:
        for left, right in zip(golds, answers, strict=True):
            verdict = _element(left, right, options)
            if verdict.score < 1:
                return Verdict(0.0, verdict.code, f"element: {verdict.reason}")
        return compared(1.0, "all elements equal, in order")
    for element in golds:
        match = next((e for e in answers if _element(element, e, options).score == 1), None)
        if match is None:
            return compared(0.0, "an element is missing")
        answers.remove(match)
    return compared(1.0, "all elements equal")


def _in_order_of_labels(golds: list[str], answers: list[str]) -> tuple[list[str], list[str], bool]:
    """The elements, and whether their order counts: labels that differ (`y = 2, x = 1`) say which is which."""
    names, others = ([split_label(element)[0] for element in side] for side in (golds, answers))
    if len(set(names)) == len(names) and sorted(names) == sorted(others) and all(names):
        return golds, [answers[others.index(name)] for name in names], True
    return golds, answers, all(names) and len(set(names)) > 1 and not any(others)


def _element(gold: str, answer: str, options: Options) -> Verdict:
    """The verdict on one element of a tuple, set or list: work left undone is refused in each of them."""
    gold, answer, why = without_labels(gold, answer)
    if not why and read_number(gold) and read_number(answer):
        return compare(gold, answer, options)
    unfinished = why or undone(gold, last_side(answer) if not RELATION.search(gold) else answer)
    return refused(unfinished) if unfinished else compare(gold, answer, options)


def _atoms(gold: str, answer: str, options: Options) -> Verdict:
    left, right = read_number(gold), read_number(answer)
    if left and right:
        return compare_numbers(left, right, options)
    if solid(gold) == solid(answer):
        return Verdict(0.0, "bad_gold", "unparsable gold") if parse_latex(gold) is None else compared(1.0, "same text")
    if is_words(gold) or is_words(answer):
        return compared(0.0, "words differ")
    (gold, gold_unit), (answer, answer_unit) = split_unit(gold), split_unit(answer)
    if not unit_fits(gold_unit, answer_unit, options.units, options.nouns):
        instead = f" instead of {gold_unit}" if gold_unit else ", which the gold answer has not"
        return compared(0.0, f"unit {answer_unit}{instead}")
    if holds_words(answer) and not holds_words(gold):
        return refused("words in a formula")
    if len(sides(answer)) > 1 and not RELATION.search(gold):
        return _chain(gold, answer, options)
    return _expressions(gold, answer, options)


def _chain(gold: str, answer: str, options: Options) -> Verdict:
    r"""`x = 2 \cdot 3 = 6` for gold 6: the left end may name what is asked for, every other side must be equal."""
    parts = sides(answer)
    for side in parts[1:] if is_label(parts[0]) else parts:
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
    relations = isinstance(gold_value, Relational) and isinstance(answer_value, Relational)
    # Values first: math-verify simplifies differences, which is slow for what is plainly different, and calls equal
    # whatever agrees to 15 digits.
    same = relations_agree(gold_value, answer_value) if relations else agree(gold_value, answer_value)
    if same is not None:
        return compared(float(same), f"{'relations' if relations else 'values'} {'equal' if same else 'differ'}")
    if not verify(gold_value, answer_value, allow_set_relation_comp=True, timeout_seconds=None):
        return compared(0.0, "math-verify: different")
    if isinstance(gold_value, Relational) != isinstance(answer_value, Relational):
        return refused("an equation against none")
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


def _values_agree(gold: str, gold_value: Expression, answer: str, answer_value: Expression, options: Options) -> bool:
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


def _fraction(number: PlainNumber | None, value: Expression) -> Fraction | None:
    """The value of a plain number, or of a real expression without variables to 50 digits; None for anything else."""
    if number is not None:
        return number.value
    if not isinstance(value, sympy.Expr) or value.free_symbols:
        return None
    approximate = value.evalf(50)
    return Fraction(str(approximate)) if isinstance(approximate, sympy.Float | sympy.Integer) else None
