"""math-verify and the rules around it: what our rules veto, and that the quick way agrees with math-verify."""

import logging
import random
from fractions import Fraction

import pytest
from math_verify import LatexExtractionConfig, parse, verify

from infimmr_jax.rewards.math.symbolic import compare, parse_latex
from infimmr_jax.rewards.math.verify_math import decide
from infimmr_jax.rewards.verdict import Options

logging.getLogger("math_verify").setLevel(logging.CRITICAL)


def outside(gold: str, answer: str) -> bool:
    """math-verify alone, gold first."""
    config = [LatexExtractionConfig(boxed_match_priority=0)]
    left, right = (parse(rf"\boxed{{{text}}}", config, parsing_timeout=None) for text in (gold, answer))
    return bool(verify(left, right, timeout_seconds=None))


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("5", "9 = 5"),
        (r"\{1, 2\}", "(1, 2)"),
        (r"\left(-\frac{16}{5}, \frac{53}{10}\right)", r"-\left(-\frac{16}{5}, \frac{53}{10}\right)"),
        ("5", "5}"),
        ("1011_2", "1011_3"),
        ("4", r"\int_0^4 1 dx"),
        ("97", "97, 97"),
    ],
)
def test_what_math_verify_accepts_and_we_do_not(gold: str, answer: str) -> None:
    assert outside(gold, answer)
    verdict = decide(gold, answer) or compare(gold, answer, Options())
    assert verdict.score == 0, verdict.reason


def test_the_quick_way_agrees_with_math_verify_on_plain_numbers() -> None:
    """Random pairs of integers, decimals and fractions, equal and nearly equal, in several written forms."""
    generator = random.Random(0)
    checked = 0
    for _ in range(400):
        value = Fraction(generator.randint(-200, 200), generator.choice([1, 1, 2, 4, 5, 8, 10, 25, 100]))
        other = generator.choice([value, value, -value, value + 1, value + Fraction(1, 100), value * 10, value / 10])
        gold, answer = (_written(number, generator) for number in (value, other))
        quick = decide(gold, answer)
        assert quick is not None, (gold, answer)
        assert quick.score == float(value == other), (gold, answer)
        assert outside(gold, answer) == (value == other), (gold, answer)
        checked += value == other
    assert checked > 100


def _written(value: Fraction, generator: random.Random) -> str:
    sign, top, bottom = "-" if value < 0 else "", abs(value.numerator), value.denominator
    fraction = rf"{sign}\frac{{{top}}}{{{bottom}}}" if bottom > 1 else f"{sign}{top}"
    decimal = f"{float(value):.6f}".rstrip("0").rstrip(".")
    return generator.choice([fraction, decimal, f"${fraction}$" if bottom == 1 else fraction])


def test_rounded_values_by_the_rule_of_plain_numbers() -> None:
    assert compare(r"\frac{22}{7}", "3.142857", Options()).score == 1
    assert compare(r"\sqrt{2}", "1.414214", Options()).score == 1
    assert compare(r"\frac{\sqrt{2}}{1000000}", "0.000001", Options()).score == 0  # equal to six places only
    assert compare(r"\sqrt{2}", "1.4", Options(relative_tolerance=0.02)).score == 1


def test_unparsable_sides_are_told_apart() -> None:
    assert compare(r"\angle 3 \cong \angle Z", "5", Options()).reason == "unparsable gold"
    assert compare("x+1", "x+", Options()).reason == "unparsable answer"
    assert parse_latex("5}") is None
    assert parse_latex("-(1, 2)") is None


def test_equations_without_content_are_no_equation() -> None:
    assert compare("x^2 + y^2 = -1", "0 = 1", Options()).score == 0
    assert compare("x + y = 1", "u + v = 1", Options()).score == 0
