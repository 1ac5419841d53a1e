"""Plain numbers, read exactly."""

from fractions import Fraction

import pytest

from infimmr_jax.rewards.math.numbers import PlainNumber, parse_number, same_unit, split_unit


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("5", PlainNumber(Fraction(5))),
        ("-5", PlainNumber(Fraction(-5))),
        ("1,234.50", PlainNumber(Fraction(12345, 10), decimals=2)),
        (".5", PlainNumber(Fraction(1, 2), decimals=1)),
        ("1.5e-3", PlainNumber(Fraction(15, 10**4), decimals=4)),
        ("1.5e3", PlainNumber(Fraction(1500), decimals=0)),
        (r"3 \times 10^{8}", PlainNumber(Fraction(3 * 10**8))),
        ("10^3", PlainNumber(Fraction(1000))),
        (r"-\frac{3}{4}", PlainNumber(Fraction(-3, 4))),
        (r"\frac{-3}{4}", PlainNumber(Fraction(-3, 4))),
        (r"2\frac{1}{2}", PlainNumber(Fraction(5, 2))),
        ("2 1/2", PlainNumber(Fraction(5, 2))),
        ("50%", PlainNumber(Fraction(50), percent=True)),
        (r"\$5.25", PlainNumber(Fraction(21, 4), unit="dollar", decimals=2)),
        ("47°", PlainNumber(Fraction(47), unit="degree")),
        ("20 °C", PlainNumber(Fraction(20), unit="degreeC")),
        (r"5 \text{ cm}^2", PlainNumber(Fraction(5), unit="cm2")),
        ("12 km/h", PlainNumber(Fraction(12), unit="km/h")),
    ],
)
def test_what_is_read(text: str, number: PlainNumber) -> None:
    assert parse_number(text) == number


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "x", "5x", "5!", "5^2", "1,2", "12,34", "1.2.3", "--5", "5 6", "1/0", r"\frac{1}{0}", "5/2/1", "2 3/2",
        "1e999", "9" * 61, "1" * 300, "0x10", "1_000", "٤", "five", "5 million", "5 or 6", r"5 \text{ or } 6", "6:30",
        "inf", "nan", r"\frac{1}{2}\frac{1}{2}", "5%%", "$", "%", "e5", ".", "5 at least",
    ],
)  # fmt: skip
def test_what_is_not_a_plain_number(text: str) -> None:
    assert parse_number(text) is None


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("cm", "centimeters", True),
        ("cm2", "square centimeters", True),
        ("cm", "cm2", False),
        ("cm", "m", False),
        ("units", "cm", True),
        ("square units", "cm2", True),
        ("square units", "cm", False),
        ("hrs", "hours", True),
        ("dollars", "dollar", True),
        ("degree", "degrees", True),
        ("dogs", "dog", True),
        ("glass", "glass", True),
    ],
)
def test_units(first: str, second: str, same: bool) -> None:
    assert same_unit(first, second) == same
    assert same_unit(second, first) == same


def test_a_unit_is_split_off_any_formula() -> None:
    assert split_unit(r"2\sqrt{3} \text{ cm}") == (r"2\sqrt{3}", "cm")
    assert split_unit(r"14\pi cm^2") == (r"14\pi", "cm2")
    assert split_unit("x+1") == ("x+1", "")
    assert split_unit("50%") == ("50%", "")
