"""Verify a plain number, exactly or with partial credit for a near one."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

from infimmr_jax.rewards.math.equality import numbers_equal
from infimmr_jax.rewards.math.labels import strip_label
from infimmr_jax.rewards.math.latex import tidy
from infimmr_jax.rewards.math.measures import unit_fits
from infimmr_jax.rewards.math.numbers import PlainNumber, parse_number, read_number
from infimmr_jax.rewards.verdict import Options, Verdict, compared

RELATIVE = 0.05
COSINE_FULL, COSINE_NONE = 0.05, 0.20
DECIMALS = 2.0


def verify_number(gold: str, answer: str, options: Options = Options()) -> Verdict:  # noqa: B008 - frozen
    """Score a plain number by `options.rule`; anything that is not a plain number scores 0.

    exact: the rule of `verify_math.numbers_equal`. rounded: equal after rounding to `threshold` decimals (2).
    relative: 1 when |answer - gold| <= `threshold` |gold| (0.05). cosine: 1 up to 5% error, 0 from 20%, a half cosine
    between (Reason-RFT's tolerance reward). mean_relative: mean over t = 0.50, 0.55 .. 0.95 of 1[error < 1 - t] (mean
    relative accuracy).
    """
    left, right = parse_number(gold), parse_number(answer) or read_number(strip_label(tidy(answer)))
    if left is None:
        return Verdict(0.0, "bad_gold", "unparsable gold")
    if right is None:
        return Verdict(0.0, "bad_form", "not a plain number")
    score = RULES[options.rule or "exact"](left, right, options)
    return compared(
        score, "numbers equal" if score == 1 else f"numbers near: {score:.2f}" if score else "numbers differ"
    )


def _error(gold: PlainNumber, answer: PlainNumber, options: Options) -> float:
    """Relative error, infinite when the gold is 0 and the answer is not, or when the unit does not fit."""
    if not unit_fits(gold.unit, answer.unit, options.units, options.nouns) or (gold.unit and answer.percent):
        return math.inf
    value = answer.value / 100 if answer.percent and not gold.percent else answer.value
    if value == gold.value:
        return 0.0
    if gold.value == 0:
        return math.inf
    error = abs(value - gold.value) / abs(gold.value)
    return float(error) if error < 10**9 else math.inf


def _exact(gold: PlainNumber, answer: PlainNumber, options: Options) -> float:
    return float(numbers_equal(gold, answer, options.relative_tolerance, options.units, options.nouns))


def _rounded(gold: PlainNumber, answer: PlainNumber, options: Options) -> float:
    scale = Fraction(10) ** int(DECIMALS if options.threshold is None else options.threshold)
    return float(_error(gold, answer, options) < math.inf and round(gold.value * scale) == round(answer.value * scale))


def _relative(gold: PlainNumber, answer: PlainNumber, options: Options) -> float:
    return float(_error(gold, answer, options) <= (RELATIVE if options.threshold is None else options.threshold))


def _cosine(gold: PlainNumber, answer: PlainNumber, options: Options) -> float:
    error = _error(gold, answer, options)
    if error < COSINE_FULL or error > COSINE_NONE:
        return float(error < COSINE_FULL)
    return 0.5 * (math.cos(math.pi * (error - COSINE_FULL) / (COSINE_NONE - COSINE_FULL)) + 1)


def _mean_relative(gold: PlainNumber, answer: PlainNumber, options: Options) -> float:
    error = _error(gold, answer, options)
    return sum(error * 100 < 100 - percent for percent in range(50, 100, 5)) / 10


RULES: dict[str, Callable[[PlainNumber, PlainNumber, Options], float]] = {
    "exact": _exact,
    "rounded": _rounded,
    "relative": _relative,
    "cosine": _cosine,
    "mean_relative": _mean_relative,
}
