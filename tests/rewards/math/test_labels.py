"""Names of what is asked for, and equations that are none."""

import pytest

from infimmr_jax.rewards.math.labels import is_label, last_side, same_label, sides, split_label, without_labels


@pytest.mark.parametrize(
    "text",
    [
        "x", "a_1", "a_{12}", "x'", r"\theta", "AB", "|AB|", r"\overline{AB}", r"\vec a", r"\vec{a}", r"|\vec{a}|",
        "f(x)", "f(2)", "f'(x)", "f^{-1}(x)", "g(f(1))", "f(x,y)", "(x,y)", "P(X=2)", "P(A|B)", r"\cos A",
        r"\tan\alpha", r"\angle A", r"m\angle ABC", r"S_{\triangle ABC}", "[ABC]", r"\frac{dy}{dx}", "Area",
        r"\text{Area}", "total cost", "number of ways", "N(5)",
    ],
)  # fmt: skip
def test_names(text: str) -> None:
    assert is_label(text)


@pytest.mark.parametrize(
    "text",
    [
        "xy", "ab", "abc", "xyz", "x+y", "2x", "x^2", "|x|", "AB^2", "AB+BC", r"\frac{x}{2}", "a(x+1)", "x(3)", "9", "",
        r"\sqrt{x}", r"\sin 2x", "not x", "wrong answer", "x y", r"\pi", "x,y",
    ],
)  # fmt: skip
def test_what_says_something_about_its_letters_is_no_name(text: str) -> None:
    assert not is_label(text)


def test_sides_are_those_outside_brackets() -> None:
    assert sides(r"P(X=2) = \frac14") == ["P(X=2)", r"\frac14"]
    assert sides("x = 2 + 3 = 5") == ["x", "2 + 3", "5"]
    assert sides(r"x \approx 5") == ["x", "5"]
    assert sides("x <= 5") == ["x <= 5"]
    assert last_side("x = 2 + 3 = 5") == "5"
    assert split_label("x = 5") == ("x", "5")
    assert split_label("x = 5 = y") == ("", "x = 5 = y")
    assert split_label("x + 1 = 5") == ("", "x + 1 = 5")


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("AB", "|AB|", True),
        ("AB", r"\overline{AB}", True),
        (r"\angle A", r"m\angle A", True),
        ("y", "f(x)", True),
        ("x", "y", False),
        ("AB", "BC", False),
        ("f(1)", "f(2)", False),
    ],
)
def test_same_label(first: str, second: str, same: bool) -> None:
    assert same_label(first, second) == same


@pytest.mark.parametrize(
    ("gold", "answer", "compared"),
    [
        ("x=5", "5", ("5", "5", True)),
        ("x=5", "x=2+3", ("5", "x=2+3", True)),
        ("x=5", "y=5", ("x=5", "y=5", False)),
        ("x=5", "x+7=12", ("x=5", "x+7=12", False)),
        ("xy=12", "12", ("xy=12", "12", False)),
        ("xy=12", "yx=12", ("xy=12", "yx=12", True)),
        ("y=2x", "2x-y=0", ("y=2x", "2x-y=0", True)),
        ("y=2x", r"y \approx 2x", ("2x", r"y \approx 2x", False)),
        ("5", "x=5", ("5", "x=5", True)),
    ],
)
def test_what_is_compared(gold: str, answer: str, compared: tuple[str, str, bool]) -> None:
    left, right, why = without_labels(gold, answer)
    assert (left, right, why == "") == compared
