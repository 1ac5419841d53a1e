"""The MATH-500 grader's rules, each with an answer that is right and one that is not."""

import pytest
from published_forms import write_json, write_jsonl, write_parquet

from infimmr_jax.data.records import DataError
from infimmr_jax.evaluation.math500 import BENCHMARK, equal, grade, normalize_loosely, normalize_math, read


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        (r"\dfrac12", r"\frac{1}{2}"),
        ("0.5", r"\frac{1}{2}"),
        ("3/4", r"\frac34"),
        (r"\sqrt3", r"\sqrt{3}"),
        ("k = 7", "7"),
        (r"90^\circ", "90"),
        (r"10\%", "10"),
        (r"\$5", "5"),
        (r"12 \text{ cm}", "12"),
        ("12 cm", "12"),
        ("1,234", "1234"),
        ("3.0", "3"),
        ("2 million", "2*10^6"),
        (r"\text{Evelyn}", "evelyn"),
        (r"\frac{\sqrt{3}}{2}", r"\sqrt{3}/2"),
        ("2x+2", "2(x+1)"),
        (r"\left(3, \frac{\pi}{2}\right)", r"(3, \frac{\pi}{2})"),
        (r"(1/2+0, 3)", "(1/2, 3)"),
        ("[2,5)", "[2,5)"),
        ("3 or 5", "3, 5"),
    ],
)
def test_right_answers(answer, gold):
    assert equal(answer, gold)


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("4", "5"),
        # An unreduced fraction, and an expression where an integer is due, are no answers.
        ("2/4", "1/2"),
        ("2^2", "4"),
        ("(2,5)", "[2,5)"),
        ("(2,5)", "(2,5,6)"),
        ("(5,2)", "(2,5)"),
        ("2x+1", "2(x+1)"),
        ("", "4"),
        ("x+y+z", "z+y+x+1"),
        (r"\sqrt{2}", r"\sqrt{3}"),
    ],
)
def test_wrong_answers(answer, gold):
    assert not equal(answer, gold)


def test_hostile_expressions_are_not_evaluated():
    for text in ("__import__('os').system('true')", "().__class__", "9^9^9^9^9", "open('x')", "lambda:0", "1" * 5000):
        assert not equal(text, "x+1")


def test_normalizations():
    assert normalize_math(r"\left( \tfrac12, .5 \right)") == r"(\frac{1}{2},0.5)"
    assert normalize_math("a/b") == "a/b"
    assert normalize_loosely(r"\text{10 degrees}") == "10"
    assert normalize_loosely("7 3/4") == "7+3/4"
    assert normalize_loosely(r"\frac{3\pi}{4}") == "3pi/4"


def test_grade_takes_the_last_box():
    assert grade({"answer": "4"}, r"\boxed{3} no, \boxed{4}").correct
    assert grade({"answer": "4"}, "I give up") == grade({"answer": "5"}, "I give up")
    assert grade({"answer": "4"}, "I give up").extracted is None


def test_all_published_forms(tmp_path):
    rows = [
        {
            "problem": f"What is {i}+1?",
            "answer": str(i + 1),
            "subject": "Algebra",
            "level": i,
            "unique_id": f"test/{i}.json",
        }
        for i in range(3)
    ]
    plain = [{"problem": "p", "answer": "1"}, {"problem": "q", "answer": "2"}]
    write_jsonl(tmp_path / "jsonl" / "test.jsonl", rows)
    write_parquet(tmp_path / "hub" / "data" / "test-00000-of-00001.parquet", rows)
    for name in ("jsonl", "hub"):
        items = read(tmp_path / name)
        assert [item.id for item in items] == ["test/0.json", "test/1.json", "test/2.json"]
        assert items[2].groups == {"subject": "Algebra", "level": "2"}
        assert items[1].gold == {"answer": "2"}
        assert items[1].prompt.startswith("What is 1+1?\n\n")
    items = read(write_json(tmp_path / "list.json", plain))
    assert [item.id for item in items] == ["row-1", "row-2"]
    write_jsonl(tmp_path / "twice.jsonl", rows[:1] * 2)
    with pytest.raises(DataError, match="occurs twice"):
        read(tmp_path / "twice.jsonl")
    assert BENCHMARK.read is read
