"""Values of LaTeX texts against plain arithmetic."""

import math

import pytest

from infimmr_jax.evaluation.latex_values import UnreadableLatexError, has_huge_power, number, parse


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        (r"\frac{1}{2}", 0.5),
        (r"\frac17", 1 / 7),
        (r"\dfrac 3 8", 0.375),
        (r"\tfrac{16}3", 16 / 3),
        (r"\sqrt{3}/2", math.sqrt(3) / 2),
        (r"2\pi", 2 * math.pi),
        ("2(3)", 6),
        ("(2)(3)", 6),
        (r"7.8\times 10^2", 780),
        (r"2\frac{1}{2}", 1),
        (r"\log_2(8)", 3),
    ],
)
def test_numbers(text, value):
    assert number(text) == pytest.approx(value)


@pytest.mark.parametrize(
    "text", ["", "x", "2x", "the answer is 5", "(1,2)", r"\infty", "nan", r"\frac{1}{0}", "1+", "{"]
)
def test_what_has_no_value(text):
    assert number(text) is None


def test_huge_powers_are_not_computed():
    assert number("10^{10^{10^{10}}}") is None
    assert number("2^{5000}/2^{5000}") is None
    assert has_huge_power(parse("x^{2000}"), 1000)
    assert not has_huge_power(parse("x^{20}"), 1000)


def test_letters_keep_their_case_and_bad_latex_is_named():
    assert parse("N") != parse("n")
    with pytest.raises(UnreadableLatexError, match="is not an expression"):
        parse(r"\begin{nonsense}")
