"""Golds that can not be graded are found when data are read."""

import time

import pytest

from infimmr_jax.data.records import Problem
from infimmr_jax.rewards.golds import check_gold, check_golds
from infimmr_jax.rewards.pool import GraderPool


def problem(answer: str, answer_type: str = "math", choices: tuple[str, ...] = ()) -> Problem:
    return Problem("p", "q", answer, answer_type, choices)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (problem("12"), None),
        (problem(""), "the answer is empty"),
        (problem("  "), "the answer is empty"),
        (problem("B", "choice", ("x", "y")), None),
        (problem("C", "choice", ("x", "y")), "does not name one of 2 options"),
        (problem("BC", "choice", ("x", "y")), "does not name one of 2 options"),
        (problem("true", "string"), None),
        (problem("...", "string"), "holds nothing to compare"),
        (problem("[0,0,1,1]", "box"), None),
        (problem("[0,0,1]", "box"), "unparsable gold"),
        (problem("5,3", "span"), "unparsable gold"),
    ],
)
def test_golds_that_the_text_decides(given: Problem, said: str | None) -> None:
    found = check_gold(given)
    assert found is None if said is None else found is not None and said in found


def test_latex_golds_are_parsed_by_the_pool() -> None:
    golds = {
        r"\frac{\sqrt{2}}{2}": True,
        r"\text{August}": True,
        r"(1, 2] \cup [3, \infty)": True,
        r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}": True,
        "x = 1, y = 2": True,
        "1011_2": True,
        r"\angle 3 \cong \angle Z": False,
        r"\frac{1}{": False,
        "5 +": False,
    }
    with GraderPool(workers=1) as pool:
        said = check_golds([problem(gold) for gold in golds], pool)
    assert {gold: sentence is None for gold, sentence in zip(golds, said, strict=True)} == golds
    assert all("can not be graded" in sentence for sentence in said if sentence)


def test_forty_thousand_numbers_take_seconds() -> None:
    problems = [problem(str(i)) for i in range(30_000)] + [problem(rf"\frac{{{i}}}{{7}}") for i in range(10_000)]
    started = time.process_time()
    with GraderPool(workers=1) as pool:
        assert not any(check_golds(problems, pool))
    assert time.process_time() - started < 10
