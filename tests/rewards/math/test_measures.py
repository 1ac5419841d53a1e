"""Which words behind a number are units."""

import pytest

from infimmr_jax.rewards.math.measures import is_known, is_number_word, is_unit_word, same_unit, unit_fits, unit_name


@pytest.mark.parametrize(
    "unit",
    [
        "cm", "km/h", "km per hour", "square metres", "cm2", "m/s2", "N", "kg", "厘米", "平方厘米", "个", "Stunden",
        "euros", "apples", "red apples", "ways", "degreeC", "MPa", "hrs",
    ],
)  # fmt: skip
def test_known(unit: str) -> None:
    assert is_known(unit)


@pytest.mark.parametrize("unit", ["foo", "wrong", "square", "错", "三", "bn", "x", "", "B", "thousand"])
def test_unknown(unit: str) -> None:
    assert not is_known(unit)


@pytest.mark.parametrize(
    "word",
    ["thousand", "Thousand", "eighths", "fifteen", "quadrillion", "septillions", "hundredths", "not", "less", "万"],
)
def test_number_words(word: str) -> None:
    assert is_number_word(word)


@pytest.mark.parametrize("word", ["month", "months", "teeth", "path", "cm", "apples"])
def test_words_that_only_look_like_numbers(word: str) -> None:
    assert not is_number_word(word)


def test_names_of_one_unit() -> None:
    assert {unit_name(word) for word in ("cm", "centimetres", "Centimeter", "厘米", "см")} == {"cm"}
    assert unit_name("square centimetres") == unit_name("平方厘米") == unit_name("cm2") == "cm2"
    assert same_unit("hours", "hrs")
    assert not same_unit("mW", "MW")
    assert is_unit_word("m")
    assert not is_unit_word("x")


@pytest.mark.parametrize(
    ("gold", "answer", "units", "nouns", "fits"),
    [
        ("", "", (), (), True),
        ("cm", "", (), (), True),
        ("cm", "centimetres", (), (), True),
        ("cm", "m", None, (), False),
        ("", "cm", None, (), True),
        ("", "cm", (), (), False),
        ("", "cm", ("centimetre",), (), True),
        ("", "km", ("cm",), (), False),
        ("", "widgets", None, (), False),
        ("", "widgets", None, ("widgets",), True),
        ("widgets", "widgets", None, (), True),
        ("", "K", None, (), False),
    ],
)
def test_what_an_answer_may_carry(
    gold: str, answer: str, units: tuple[str, ...] | None, nouns: tuple[str, ...], fits: bool
) -> None:
    assert unit_fits(gold, answer, units, nouns) == fits
