"""Extraction beyond the table of cases: positions of boxes, the answer part, limits."""

import pytest

from infimmr_jax.data.markup import last_boxed
from infimmr_jax.rewards.extract import answer_part, boxes, extract


def test_boxes_are_outermost_and_in_order() -> None:
    text = r"a \boxed{1} b \boxed{\frac{2}{3}} c \boxed{4 \boxed{5}} \boxed{"
    assert [content for _, _, content in boxes(text)] == ["1", r"\frac{2}{3}", r"4 \boxed{5}"]
    start, end, _ = boxes(text)[1]
    assert text[start:end] == r"\boxed{\frac{2}{3}}"
    assert last_boxed(text) == r"4 \boxed{5}"
    assert last_boxed("none") is None


def test_the_answer_part_follows_the_last_end_of_thinking() -> None:
    assert answer_part("<think>a</think>b") == "b"
    assert answer_part("<think>a</think>b</think>c") == "c"
    assert answer_part("b") == "b"
    assert answer_part("<think>a") is None
    assert answer_part("x <think>") is None


@pytest.mark.parametrize(
    ("response", "rule"),
    [
        ("no mark", "no answer marked"),
        ("<think>x", "thinking does not end"),
        (r"\boxed{1} \boxed{2}", "contradictory boxes"),
        (r"\boxed{1 \boxed{2}}", "a box inside a box"),
        ("<answer>1", "unbalanced <answer> tags"),
        ("<answer>1</answer><answer>2</answer>", "contradictory <answer> tags"),
        (r"<answer>1</answer> \boxed{2}", "a box contradicts <answer>"),
        (r"\boxed{}", "empty answer"),
        (r"\boxed{" + "1" * 3000 + "}", "answer longer than 2000 characters"),
        (r"\boxed{" + "(" * 60 + ")" * 60 + "}", "answer nested deeper than 40"),
        ("x" * 300_000, "longer than 200000 characters"),
        (r"\boxed{1} " * 40, "too many boxes"),
    ],
)
def test_every_refusal_has_a_reason(response: str, rule: str) -> None:
    found = extract(response)
    assert found.answer is None
    assert found.rule == rule


def test_an_unknown_format_is_named() -> None:
    with pytest.raises(ValueError, match="thinkboxed"):
        extract("x", "thinkboxed")
