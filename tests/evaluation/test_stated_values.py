"""Numbers and lists of short statements, as the extractions published with MathVista write them."""

import time

import pytest

from infimmr_jax.evaluation.stated_values import last_value, spaced, written_list, written_number


@pytest.mark.parametrize(
    ("statement", "number"),
    [
        (r"5\text{ m}^2", "5"),
        ("1.2 cm^2", "1.2"),
        ("5m^2", "5"),
        ("6 cm²", "6"),
        (r"4.5\, \mathrm{m} / \mathrm{s}^2", "4.5"),
        (r"1.2 \times 10^3 N/C", "1200"),
        (r"12 \, \text{units}^2", "12"),
        (r"\text{Area: 14 cm}^2", "14"),
        (r"\text{The radius is } 7 \text{ units}", "7"),
        (r"\text{approximately } 3.5 \text{ kg}", "3.5"),
        (r"30^\circ", "30"),
        (r"30\%", "30"),
        ("0.3%", "0.3"),
        (r"\$1,400", "1400"),
        ("10/2", "5"),
        ("10 - 5", "5"),
        (r"A = 12.5 \text{ cm}^2", "12.5"),
        ("5 = x", "5"),
        ("2, as two stores sold less than 5 units", "2"),
        ("3 of 14 apples", "3"),
        ("14.9", "14.9"),
    ],
)
def test_numbers(statement, number):
    assert written_number(statement, integer=True) == number
    assert written_number(statement, integer=False) == number


@pytest.mark.parametrize(
    ("statement", "as_integer", "as_decimal"),
    [
        (r"\frac{6}{5}", r"\frac{6}{5}", "1.2"),
        ("4/3", "4/3", repr(4 / 3)),
        (r"\sqrt{16}", "4", "4"),
        (r"2\sqrt{3}", None, repr(2 * 3**0.5)),
    ],
)
def test_fractions_and_roots_are_worked_out_where_a_decimal_is_asked_for(statement, as_integer, as_decimal):
    assert written_number(statement, integer=True) == as_integer
    found = written_number(statement, integer=False)
    assert found == as_decimal or float(found) == pytest.approx(float(as_decimal), abs=1e-12)


@pytest.mark.parametrize(
    "statement",
    ["", "undefined", "(2,3)", "3, 5", "2000 and 2005", "2n+1", "5x", "5 - x", r"12\text{ and }130", "1/0", "3 + 4i"],
)
def test_no_number_or_several(statement):
    assert written_number(statement, integer=True) is None


def test_long_and_hostile_statements_are_quick():
    began = time.process_time()
    for text in ("a" * 290 + "+1", "1 " + "ab " * 90 + "+", "9" * 299, "1" + " m" * 120 + "!", "(" * 280, "5" * 10_000):
        written_number(text, integer=True)
    assert time.process_time() - began < 5


def test_last_value_knows_exponents_of_units():
    assert last_value("It is 5 m wide, so the area is 375 cm^2", integer=True) == "375"
    assert last_value(r"about 1.5 \times 10^{2} \text{ m}^2", integer=True) == "150"
    assert last_value("She needs S23", integer=True) == "23"
    assert last_value("nothing", integer=True) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[1,2]", "[1, 2]"),
        (r"first [0], then \left[ 1 ,\ 2\right]", "[1, 2]"),
        ("between 2007 and 2008.", "[2007, 2008]"),
        ("1, 2, and 3", "[1, 2, 3]"),
        (r"\{2014, 2016\}", "[2014, 2016]"),
        ("none", None),
    ],
)
def test_lists(text, found):
    assert written_list(text) == found


def test_spaced():
    assert spaced("[1,2 ,  3]") == spaced("1,2,3") == "[1, 2, 3]"
