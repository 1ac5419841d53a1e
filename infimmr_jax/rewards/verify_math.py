"""Verify a mathematical answer: plain numbers exactly and at once, everything else by math-verify in a worker.

`decide` never imports sympy, so it may run in the trainer; `verify_math` is the whole verifier and may take any time
and memory: it runs in a grader process (see `pool`).
"""

from __future__ import annotations

import re
from fractions import Fraction

from infimmr_jax.rewards.numbers import PlainNumber, parse_number
from infimmr_jax.rewards.text import MAX_ANSWER, MAX_NESTING, fold, nesting, unwrap
from infimmr_jax.rewards.verdict import Options, Verdict

# Significant digits a decimal must show to stand for an exact value that it does not equal (0.333333 for 1/3).
ROUNDING_DIGITS = 6

_LABEL = re.compile(r"^[A-Za-z](?:_\{?[A-Za-z0-9]{1,3}\}?)?\s*=\s*(?=[^=]*$)")
_SYNONYMS = {"degrees": "degree", "metre": "m", "metres": "m", "meter": "m", "meters": "m"}


def numbers_equal(gold: PlainNumber, answer: PlainNumber, relative_tolerance: float = 0.0) -> bool:
    """Whether two plain numbers are the same quantity.

    Exact, except that a decimal with at least six significant digits may stand for a fraction it is the rounding of,
    and that `relative_tolerance` widens the comparison when it is not 0. `6%` equals `6` and `0.06`; `6` and `0.06`
    stay apart. A bare number above 1 may be answered with a percent sign (50 by 50%), one below may not (0.5% is not
    0.5). Two different units never agree.
    """
    if gold.unit and answer.unit and not _same_unit(gold.unit, answer.unit):
        return False
    if gold.percent and answer.percent:
        return _close(gold, answer, gold.value, answer.value, relative_tolerance)
    pairs = [(gold.value, answer.value)]
    if gold.percent:
        pairs = [(gold.value, answer.value), (gold.value / 100, answer.value)]
    elif answer.percent:
        pairs = [(gold.value, answer.value / 100)]
        if abs(gold.value) > 1:
            pairs.append((gold.value, answer.value))
    return any(_close(gold, answer, left, right, relative_tolerance) for left, right in pairs)


def _same_unit(first: str, second: str) -> bool:
    def norm(unit: str) -> str:
        unit = _SYNONYMS.get(unit, unit)
        return unit[:-1] if len(unit) > 3 and unit.endswith("s") else unit

    return norm(first) == norm(second)


def _close(gold: PlainNumber, answer: PlainNumber, left: Fraction, right: Fraction, tolerance: float) -> bool:
    if left == right:
        return True
    if gold.decimal != answer.decimal:
        rounded, exact = (left, right) if gold.decimal else (right, left)
        if exact.denominator > 1 and rounded != 0 and _is_rounding(rounded, exact):
            return True
    return tolerance > 0 and left != 0 and abs(right - left) <= Fraction(tolerance) * abs(left)


def _is_rounding(rounded: Fraction, exact: Fraction) -> bool:
    """Whether `rounded` is `exact` cut or rounded to the digits it shows, of which at least six are significant."""
    digits = 0
    scaled = rounded
    while scaled.denominator != 1 and digits < 40:
        scaled *= 10
        digits += 1
    return abs(scaled) >= 10 ** (ROUNDING_DIGITS - 1) and abs(exact * 10**digits - scaled) < 1


def strip_label(text: str) -> str:
    """The right side of `x = ...` when the left side is a single (indexed) letter."""
    return _LABEL.sub("", text, count=1)


def compact(text: str) -> str:
    """The text without wrappers and spaces: two answers with equal compact forms are the same answer."""
    return "".join(unwrap(fold(text)).split())


def refusal(answer: str) -> str | None:
    """Why an answer is not looked at (bounded input): too long or too deeply nested."""
    if not answer.strip():
        return "empty answer"
    if len(answer) > MAX_ANSWER:
        return f"longer than {MAX_ANSWER} characters"
    if nesting(answer) > MAX_NESTING:
        return f"nested deeper than {MAX_NESTING}"
    return None


def decide(gold: str, answer: str, options: Options = Options()) -> Verdict | None:  # noqa: B008 - frozen
    """The verdict where the strings alone decide it (plain numbers, identical text), else None."""
    why = refusal(answer)
    if why:
        return Verdict(0.0, why)
    if not gold.strip():
        return Verdict(0.0, "unparsable gold")
    gold_number = parse_number(gold)
    if gold_number is not None:
        answer_number = parse_number(answer) or parse_number(strip_label(unwrap(answer)))
        if answer_number is not None:
            equal = numbers_equal(gold_number, answer_number, options.relative_tolerance)
            return Verdict(float(equal), "numbers equal" if equal else "numbers differ")
    if compact(gold) == compact(answer):
        return Verdict(1.0, "same text")
    return None


def verify_math(gold: str, answer: str, options: Options = Options()) -> Verdict:  # noqa: B008 - frozen
    """Whether an answer equals the gold answer; bare strings, LaTeX or plain text, gold first."""
    quick = decide(gold, answer, options)
    if quick is not None:
        return quick
    from infimmr_jax.rewards.symbolic import compare

    return compare(gold, answer, options)


def verify_gold(gold: str, answer: str, options: Options = Options()) -> Verdict:  # noqa: B008 - frozen
    """Whether a gold answer can be parsed and equals itself by the path that answers take."""
    from infimmr_jax.rewards.symbolic import compare

    return compare(gold, gold, options)


__all__ = ["decide", "numbers_equal", "refusal", "strip_label", "verify_gold", "verify_math"]
