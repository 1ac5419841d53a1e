"""When two plain numbers are the same quantity."""

from __future__ import annotations

import math
from fractions import Fraction

from infimmr_jax.rewards.math.measures import unit_fits
from infimmr_jax.rewards.math.numbers import PlainNumber
from infimmr_jax.rewards.verdict import Options, Verdict, compared

# Significant digits a decimal must show to stand for an exact value that it does not equal (0.333333 for 1/3).
ROUNDING_DIGITS = 6


def numbers_equal(
    gold: PlainNumber,
    answer: PlainNumber,
    relative_tolerance: float = 0.0,
    units: tuple[str, ...] | None = None,
    nouns: tuple[str, ...] = (),
) -> bool:
    """Whether two plain numbers are the same quantity.

    Exact, except that a decimal with at least six significant digits may stand for a fraction it is the rounding of,
    and that `relative_tolerance` widens the comparison when it is not 0. `6%` equals `6` and `0.06`; `6` and `0.06`
    stay apart. A bare number above 1 may be answered with a percent sign (50 by 50%), one below may not (0.5% is not
    0.5). Units agree as `measures.unit_fits` says.
    """
    if not unit_fits(gold.unit, answer.unit, units, nouns):
        return False
    if (gold.percent and answer.unit) or (gold.unit and answer.percent):
        return False
    if gold.percent == answer.percent:
        pairs = [(gold.value, answer.value)]
    elif gold.percent:
        pairs = [(gold.value, answer.value), (gold.value / 100, answer.value)]
    else:
        pairs = [(gold.value, answer.value / 100)]
        if abs(gold.value) > 1:
            pairs.append((gold.value, answer.value))
    return any(values_equal(left, gold.decimals, right, answer.decimals, relative_tolerance) for left, right in pairs)


def compare_numbers(gold: PlainNumber, answer: PlainNumber, options: Options) -> Verdict:
    """The verdict of `numbers_equal` under a verifier's options."""
    equal = numbers_equal(gold, answer, options.relative_tolerance, options.units, options.nouns)
    return compared(float(equal), "numbers equal" if equal else "numbers differ")


def values_equal(
    gold: Fraction, gold_decimals: int | None, answer: Fraction, answer_decimals: int | None, tolerance: float
) -> bool:
    """Whether two values agree: exactly, by rounding of the one that shows decimals, or within a tolerance."""
    if gold == answer:
        return True
    if gold_decimals is not None and answer_decimals is None and _is_rounding(gold, gold_decimals, answer):
        return True
    if answer_decimals is not None and gold_decimals is None and _is_rounding(answer, answer_decimals, gold):
        return True
    return tolerance > 0 and gold != 0 and abs(answer - gold) <= Fraction(tolerance) * abs(gold)


def _is_rounding(written: Fraction, decimals: int, exact: Fraction) -> bool:
    """Whether `written` is `exact` rounded, or cut, to `decimals` digits, of which at least six are significant."""
    scaled = abs(exact) * 10**decimals
    shown = abs(written) * 10**decimals
    if written * exact <= 0 or shown < 10 ** (ROUNDING_DIGITS - 1):
        return False
    return shown == math.floor(scaled) or abs(shown - scaled) * 2 <= 1
