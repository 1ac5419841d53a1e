"""MathVision: published forms and rules."""

import pytest
from published_forms import hub_image, picture_file, write_jsonl, write_parquet

from infimmr_jax.data.records import DataError
from infimmr_jax.evaluation.mathvision import PROMPT, find_answer, grade, read

CHOICE = {"answer": "C", "option": "$\\frac{1}{2}$"}
VALUE = {"answer": "61", "option": ""}


@pytest.mark.parametrize(
    ("gold", "response"),
    [
        (CHOICE, r"So \boxed{C}"),
        (CHOICE, r"\boxed{(C)}"),
        (CHOICE, "I choose (C)."),
        (CHOICE, "It must be C."),
        (CHOICE, "C\nbecause of symmetry"),
        (CHOICE, r"\boxed{\frac12}"),
        (CHOICE, r"\boxed{0.5}"),
        (CHOICE, "The answer is C. The others are too small."),
        (VALUE, r"\boxed{60} or rather \boxed{61}"),
        (VALUE, r"\boxed{x = 61}"),
        (VALUE, r"\boxed{61^\circ}"),
        (VALUE, "the sum is 61."),
        (VALUE, "The final answer is 61"),
        (VALUE, r"\boxed{61.004}"),
        ({"answer": "(2,0.5)", "option": ""}, r"\boxed{(2, \frac{1}{2})}"),
        ({"answer": r"2\sqrt{3}", "option": ""}, r"\boxed{3.46}"),
    ],
)
def test_right(gold, response):
    assert grade(gold, response).correct


@pytest.mark.parametrize(
    ("gold", "response"),
    [
        (CHOICE, r"\boxed{B}"),
        (CHOICE, ""),
        (CHOICE, "A or C, I can not say"),
        (VALUE, r"\boxed{61.01}"),
        (VALUE, r"\boxed{}"),
        (VALUE, r"\boxed{6}1"),
        # The published parser reads no degree sign in an option: only the letter is right.
        ({"answer": "D", "option": r"$40^{\circ}$"}, r"\boxed{40}"),
        ({"answer": "(1,2)", "option": ""}, r"\boxed{(2,1)}"),
    ],
)
def test_wrong(gold, response):
    assert not grade(gold, response).correct


def test_found_answers_are_lower_case_and_clean():
    assert find_answer(r"\boxed{\text{B}}") == "b"
    assert find_answer(r"\boxed{\dfrac{3}{4}\text{km}}") == r"\frac{3}{4}"
    assert find_answer("The answer should be: 12 units. Yes") == "12"


ROWS = [
    {"id": "4", "question": "Which <image1>?", "options": ["x", "y", "z", "u", "v"], "answer": "B", "level": 2}
    | {"subject": "counting", "image": "images/4.jpg"},
    {"id": "5", "question": "How many?<image1><image2>", "options": [], "answer": "7", "level": 1}
    | {"subject": "algebra", "image": "images/5.jpg"},
    {"id": "6", "question": "Which picture? <image1>", "options": ["A", "B", "C", "D", "E"], "answer": "E", "level": 5}
    | {"subject": "counting", "image": "images/6.jpg"},
]


def check(items):
    assert [item.id for item in items] == ["4", "5", "6"]
    assert items[0].prompt == f"{PROMPT}\nWhich <image1>?\n(A) x\n(B) y\n(C) z\n(D) u\n(E) v\n"
    assert items[0].gold == {"answer": "B", "option": "y"}
    assert items[0].choices == ("x", "y", "z", "u", "v")
    assert items[0].groups == {"level": "2", "subject": "counting"}
    assert items[1].answer_type == "math"
    assert len(items[1].images) == 1
    # Options that are only letters are not listed again.
    assert items[2].prompt == f"{PROMPT}\nWhich picture? <image1>\n"


def test_repository_form(tmp_path):
    write_jsonl(tmp_path / "data" / "test.jsonl", ROWS)
    for name in "456":
        picture_file(tmp_path / "images" / f"{name}.jpg")
    check(read(tmp_path))
    check(read(tmp_path / "data" / "test.jsonl"))


def test_hub_form(tmp_path):
    write_parquet(
        tmp_path / "data" / "test-00000-of-00001.parquet", [{**row, "decoded_image": hub_image()} for row in ROWS]
    )
    check(read(tmp_path))


def test_bad_gold_is_named(tmp_path):
    write_jsonl(tmp_path / "test.jsonl", [{**ROWS[0], "answer": "F"}])
    with pytest.raises(DataError, match=r"test\.jsonl, id 4: the answer 'F' is not a letter of 5 options"):
        read(tmp_path)
