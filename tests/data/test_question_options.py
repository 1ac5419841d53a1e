"""Options in every dress, and the letter that an answer names: never one of two possible ones."""

import pytest

from infimmr_jax.data.question_options import letter_columns, option_letter, read_options, split_options
from infimmr_jax.data.records import DataError


@pytest.mark.parametrize(
    "value",
    [
        ["cat", "dog"],
        {"A": "cat", "B": "dog"},
        {"B": "dog", "A": "cat", "C": None},
        {"a": "cat", "b": "dog"},
        "['cat', 'dog']",
        '["cat", "dog"]',
        "{'A': 'cat', 'B': 'dog'}",
        ["A. cat", "B. dog"],
        ["(A) cat", "(B) dog"],
        ["a) cat", "b) dog"],
        {"label": ["A", "B"], "text": ["cat", "dog"]},
        [{"label": "A", "text": "cat"}, {"label": "B", "text": "dog"}],
        [{"key": "1", "value": "cat"}, {"key": "2", "value": "dog"}],
        "A. cat\nB. dog",
    ],
)
def test_options_are_read_from(value):
    assert read_options(value) == ("cat", "dog")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"A": "cat", "C": "dog"}, "without a gap"),
        ({"x": "cat"}, "not the letters"),
        ([True, False], "is not a text"),
        ([{"bytes": b"x"}], "neither a text nor an object"),
        ([{"label": "B", "text": "x"}], "must run from A"),
        ("['cat', ", "can not be read as a list"),
        ("cat, dog", "not a list of texts"),
        (7, "not a list of texts"),
    ],
)
def test_options_that_are_not_understood_are_quoted(value, reason):
    with pytest.raises(DataError, match=reason):
        read_options(value)


def test_labels_come_off_only_where_every_option_has_its_own():
    assert read_options(["A. cat", "dog"]) == ("A. cat", "dog")
    assert read_options(["B. cat", "A. dog"]) == ("B. cat", "A. dog")


def test_a_column_a_letter():
    assert letter_columns({"A": "x", "B": 2, "C": float("nan"), "D": None, "q": 1}) == ("x", "2")
    assert letter_columns({"A": "x", "C": "y"}) == ()
    with pytest.raises(DataError, match="have a gap"):
        letter_columns({"A": "x", "B": "y", "D": "z"})


@pytest.mark.parametrize(
    ("answer", "options", "letter"),
    [
        ("B", ["cat", "dog"], "B"),
        ("(b)", ["cat", "dog"], "B"),
        ("b", ["cat", "dog"], "B"),
        ("B.", ["cat", "dog"], "B"),
        ("Option B", ["cat", "dog"], "B"),
        ("B. 20", ["10", "20"], "B"),
        ("(B) 20", ["10", "20"], "B"),
        ("C. both", ["cat", "dog", "Both"], "C"),
        ("20", ["10", "20"], "B"),
        ("DOG", ["cat", "dog"], "B"),
        ("1", ["0", "1", "2"], "B"),
        ("B", ["A", "B"], "B"),
    ],
)
def test_an_answer_names_its_option(answer, options, letter):
    assert option_letter(answer, options) == (letter, False)


def test_a_place_is_counted_from_zero_and_said():
    assert option_letter(1, ["cat", "dog"]) == ("B", True)
    assert option_letter("0", ["cat", "dog"]) == ("A", True)


@pytest.mark.parametrize(
    ("answer", "options", "reason"),
    [
        ("2", ["1", "2", "3", "4"], r"may mean the options B \('2'\), C \('3'\); give the letter"),
        (0, ["3", "0", "1"], "may mean the options A .*, B"),
        ("B", ["B", "A"], "may mean the options A .*, B"),
        ("same", ["same", "same"], "may mean"),
        ("B. 30", ["10", "20"], "but option B is '20'"),
        (2, ["cat", "dog"], "if they count from 1"),
        ("D", ["cat", "dog"], r"neither a letter nor the text of one of 2 options \(cat, dog\)"),
        ("bird", ["cat", "dog"], "'bird', neither"),
    ],
)
def test_an_answer_that_may_mean_two_options_or_none_is_refused(answer, options, reason):
    with pytest.raises(DataError, match=reason):
        option_letter(answer, options)


def test_an_instruction_behind_the_options_is_no_part_of_the_last():
    question = "Which?\nA. Upright\nB. Lying\nPut your thoughts in <think> tags."
    assert split_options(question) == ("Which?\nPut your thoughts in <think> tags.", ("Upright", "Lying"))
    assert split_options("Which? (a) one (b) two") == ("Which?", ("one", "two"))
    assert split_options("Pick: A. one\ntwo B. three\nfour") == ("Pick:", ("one\ntwo", "three\nfour"))
