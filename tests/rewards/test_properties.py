"""Properties: an answer equals itself and its re-written forms, a changed number never does, nothing raises."""

import string
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from infimmr_jax.names import ANSWER_TYPES
from infimmr_jax.rewards.extract import extract
from infimmr_jax.rewards.format import FORMATS, format_error
from infimmr_jax.rewards.math.numbers import parse_number
from infimmr_jax.rewards.math.verify_math import decide, verify_math
from infimmr_jax.rewards.verdict import Options, Question
from infimmr_jax.rewards.verifiers import quick_verdict, slow_verdict

WHOLE = st.integers(-(10**15), 10**15)
SMALL = st.integers(-9999, 9999)
POSITIVE = st.integers(1, 9999)
# A shared machine may stall any single example: no deadline.
MANY = settings(deadline=None)
FEW = settings(deadline=None, max_examples=40)


def score(gold: str, answer: str) -> float:
    return verify_math(gold, answer).score


def whole_forms(number: int) -> list[str]:
    sign, digits = ("-" if number < 0 else ""), abs(number)
    return [
        str(number),
        f" {number} ",
        f"{number}.",
        f"{number}.0",
        f"${number}$",
        rf"\({number}\)",
        rf"\text{{{number}}}",
        f"**{number}**",
        f"{sign}{digits:,}",
        f"{sign}{digits:,}".replace(",", "{,}"),
        f"{sign}{digits:,}".replace(",", r",\!"),
        f"x = {number}",
        f"The answer is {number}",
        f"{number} apples",
        rf"{number} \text{{ cm}}",
        str(number).translate({ord(c): ord(c) + 0xFEE0 for c in string.digits}),
        str(number).replace("-", "−"),
        rf"\frac{{{number}}}{{1}}",
        f"0{digits}" if number > 0 else str(number),
    ]


@MANY
@given(WHOLE)
def test_a_whole_number_equals_its_forms(number: int) -> None:
    for form in whole_forms(number):
        assert score(str(number), form) == 1, form
        assert score(form, str(number)) == 1, form


@MANY
@given(WHOLE, WHOLE)
def test_another_whole_number_never_equals_it(first: int, second: int) -> None:
    if first != second:
        for form in whole_forms(second):
            assert score(str(first), form) == 0, form


@MANY
@given(WHOLE, st.data())
def test_one_changed_digit_is_wrong(number: int, data: st.DataObject) -> None:
    text = str(number)
    places = [i for i, character in enumerate(text) if character.isdigit()]
    place = data.draw(st.sampled_from(places))
    digit = data.draw(st.sampled_from([d for d in string.digits if d != text[place]]))
    changed = text[:place] + digit + text[place + 1 :]
    assert score(text, changed) == float(int(changed) == number)


@MANY
@given(SMALL, POSITIVE)
def test_a_fraction_equals_its_forms(top: int, bottom: int) -> None:
    value = Fraction(top, bottom)
    gold = rf"\frac{{{top}}}{{{bottom}}}"
    forms = [
        f"{top}/{bottom}",
        rf"\dfrac{{{top}}}{{{bottom}}}",
        rf"\tfrac{{ {top} }}{{ {bottom} }}",
        rf"\frac{{{value.numerator}}}{{{value.denominator}}}",
        rf"\frac{{{3 * top}}}{{{3 * bottom}}}",
        f"$\\frac{{{top}}}{{{bottom}}}$",
    ]
    for form in forms:
        assert score(gold, form) == 1, form
    assert score(gold, f"{top + 1}/{bottom}") == 0
    assert score(gold, f"{top}/{bottom + 1}") == float(top == 0)


@MANY
@given(SMALL, st.integers(1, 6))
def test_a_decimal_equals_its_forms(number: int, places: int) -> None:
    text = f"{number / 10**places:.{places}f}"
    for form in (text, text + "0", f"${text}$", f"{text} cm", f"x = {text}"):
        assert score(text, form) == 1, form
    changed = f"{(number + 1) / 10**places:.{places}f}"
    assert score(text, changed) == 0
    assert parse_number(text).value == Fraction(number, 10**places)  # type: ignore[union-attr]


@FEW
@given(SMALL.filter(bool), st.sampled_from([2, 3, 5, 6, 7, 10]), POSITIVE)
def test_a_root_equals_its_forms(factor: int, radicand: int, bottom: int) -> None:
    gold = rf"\frac{{{factor}\sqrt{{{radicand}}}}}{{{bottom}}}"
    for form in (
        rf"\dfrac{{{factor} \sqrt{{{radicand}}}}}{{{bottom}}}",
        rf"\frac{{{factor}}}{{{bottom}}}\sqrt{{{radicand}}}",
        rf"\frac{{\sqrt{{{factor * factor * radicand}}}}}{{{bottom if factor > 0 else -bottom}}}",
        f"{factor}sqrt({radicand})/{bottom}",
        f"{factor}√{radicand}/{bottom}",
    ):
        assert score(gold, form) == 1, form
    assert score(gold, rf"\frac{{{factor + 1}\sqrt{{{radicand}}}}}{{{bottom}}}") == 0
    assert score(gold, rf"\frac{{{factor}\sqrt{{{radicand + 1}}}}}{{{bottom}}}") == 0
    assert score(gold, rf"-{gold}") == 0


@FEW
@given(st.lists(SMALL, min_size=2, max_size=5))
def test_tuples_keep_order_and_sets_do_not(numbers: list[int]) -> None:
    joined, backwards = (", ".join(map(str, order)) for order in (numbers, numbers[::-1]))
    assert score(f"({joined})", f"\\left({joined.replace(' ', '')}\\right)") == 1
    assert score(f"({joined})", f"({backwards})") == float(numbers == numbers[::-1])
    assert score(joined, backwards) == 1
    assert score(rf"\{{{joined}\}}", rf"\{{{backwards}\}}") == 1
    assert score(joined, f"{joined}, 123456") == 0
    assert score(joined, ", ".join(map(str, numbers[:-1]))) == 0


@MANY
@given(st.text(max_size=300))
def test_any_text_is_answered_by_every_verifier(text: str) -> None:
    for answer_type in ANSWER_TYPES:
        verdict = quick_verdict(Question(answer_type, "12", text))
        assert verdict is None or 0 <= verdict.score <= 1


@given(st.text(alphabet="0123456789+-*/^{}()[],.=\\ xfracsqt$%<>&|!", max_size=60))
@FEW
def test_formula_like_text_is_answered_without_an_exception(text: str) -> None:
    question = Question("math", r"\sqrt{2}", text)
    verdict = quick_verdict(question) or slow_verdict(question)
    assert 0 <= verdict.score <= 1


@MANY
@given(st.text(max_size=200), st.sampled_from(sorted(FORMATS)))
def test_any_text_is_extracted_and_checked(text: str, response_format: str) -> None:
    found = extract(text, response_format)
    assert found.rule
    assert found.answer is None or found.answer in text
    error = format_error(text, response_format)
    assert error is None or error


@MANY
@given(st.text(alphabet=st.characters(exclude_characters="<>\\{}"), min_size=1, max_size=40), WHOLE)
def test_a_response_in_the_format_is_read_back(thought: str, number: int) -> None:
    response = f"<think>a{thought}</think> \\boxed{{{number}}}"
    assert format_error(response, "think_boxed") is None
    assert extract(response).answer == str(number)


@MANY
@given(WHOLE, WHOLE)
def test_the_quick_way_alone_decides_plain_numbers(first: int, second: int) -> None:
    verdict = decide(str(first), str(second), Options())
    assert verdict is not None
    assert verdict.score == float(first == second)
