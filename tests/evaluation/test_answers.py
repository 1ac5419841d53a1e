"""Finding answers in free text."""

import pytest

from infimmr_jax.evaluation.answers import (
    final_text,
    last_number,
    last_option_letter,
    option_letter,
    stated_answer,
)


def test_final_text_is_what_follows_the_thinking():
    assert final_text("<think>so \\boxed{3}</think>\\boxed{4}") == "\\boxed{4}"
    assert final_text("a</think>b</think> c") == "c"
    assert final_text("no tags") == "no tags"
    assert final_text("<think>never closed \\boxed{4}") == ""


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"first \boxed{3}, then \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\text{(B)}}", "(B)"),
        ("The final answer is 42.", "42"),
        ("**Answer:** C", "C"),
        ("The correct option letter is D.", "D"),
        ("The answer is 3.5 cm. It is long.", "3.5 cm"),
        ("The answer to the question is 2.", "2"),
        ("所以答案：B", "B"),
        ("I can not tell", None),
        (r"\boxed{4", None),
        ("The answer is C because it is larger.", "C"),
        ("B is the correct answer.", "B"),
        ("A is the correct answer? No: the answer is (D).", "(D)"),
        ("Hence option (B) is correct", "B"),
        ("The answer is 72, in total.", "72"),
        ("The answer is 3, 4.", "3, 4"),
        ("(A) is not the correct answer", None),
    ],
)
def test_stated_answer(text, answer):
    assert stated_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("(B)", "B"),
        ("B.", "B"),
        ("B: 14 cm", "B"),
        ("(B) 14", "B"),
        ("option C", "C"),
        ("Choice (A) is", "A"),
        ("$\\text{A}$", "A"),
        ("14", None),
        ("E", None),
        ("Both A and B", None),
        ("(A)(B)(C)(D)", None),
        ("(A) or (B)", None),
        ("A, B", None),
        ("A and C", None),
        ("A-C", None),
        ("(B) B", "B"),
        ("B: A triangle", "B"),
        ("C because it is larger", "C"),
        ("BA", None),
    ],
)
def test_option_letter(text, letter):
    assert option_letter(text, "ABCD") == letter


def test_last_resorts():
    assert last_option_letter("not (A) but (C) I think", "ABCD") == "C"
    assert last_option_letter("one of (A)(B)(C)(D)", "ABCD") is None
    assert last_option_letter("(A) or (B)", "ABCD") is None
    assert last_option_letter("long talk\nB", "ABCD") == "B"
    assert last_option_letter("A triangle has three sides, so we start from there and think.", "ABCD") is None
    assert last_number("from 3 to 1,234.5 units") == "1234.5"
    assert last_number("none") is None
