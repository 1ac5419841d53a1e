"""When two plain numbers are one quantity."""

from fractions import Fraction

import pytest

from infimmr_jax.rewards.math.equality import numbers_equal, values_equal
from infimmr_jax.rewards.math.numbers import parse_number


@pytest.mark.parametrize(
    ("gold", "answer", "equal"),
    [
        ("12", "12 cm", True),
        ("12 cm", "12", True),
        ("12 cm", "12 km", False),
        ("12", "12 foo", False),
        ("6%", "0.06", True),
        ("0.5", "0.5%", False),
        ("50", "50%", True),
        ("1/3", "0.333333", True),
        ("1/3", "0.333", False),
        ("€5", "5€", True),
        ("$5", "5€", False),
    ],
)
def test_numbers(gold: str, answer: str, equal: bool) -> None:
    left, right = parse_number(gold), parse_number(answer)
    assert left
    assert right
    assert numbers_equal(left, right) == equal


def test_units_of_the_row() -> None:
    left, right = parse_number("12"), parse_number("12 cm")
    assert left
    assert right
    assert not numbers_equal(left, right, units=())
    assert numbers_equal(left, right, units=("cm",))


def test_a_tolerance_is_relative() -> None:
    assert values_equal(Fraction(100), None, Fraction(101), None, 0.01)
    assert not values_equal(Fraction(100), None, Fraction(102), None, 0.01)
    assert not values_equal(Fraction(0), None, Fraction(1, 10**9), None, 0.5)
