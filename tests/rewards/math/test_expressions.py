"""The quick reader of expressions: the same object as the grammar of math-verify, or none."""

import csv
from pathlib import Path

import pytest
from math_verify import parse

from infimmr_jax.rewards.math.expressions import read_expression
from infimmr_jax.rewards.math.labels import sides
from infimmr_jax.rewards.math.latex import tidy
from infimmr_jax.rewards.math.structure import take_apart
from infimmr_jax.rewards.math.symbolic import _CONFIG
from infimmr_jax.rewards.math.values import agree

CASES = Path(__file__).parents[1] / "cases"


def by_grammar(text: str) -> object:
    found = parse(rf"\boxed{{{text}}}", [_CONFIG], parsing_timeout=None)
    return found[0] if found else None


def texts() -> list[str]:
    """Every side of every element of the hand-checked mathematical answers, right and wrong ones."""
    answers: set[str] = set()
    for name in ("answers.tsv", "refused.tsv"):
        lines = (line for line in (CASES / name).open(encoding="utf-8") if not line.startswith("#"))
        rows = [row for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE) if row["type"] == "math"]
        answers.update(*([row["gold"], row["answer"]] for row in rows))
    elements = {element for answer in answers for element in take_apart(tidy(answer)).elements}
    return sorted({side for element in elements for side in sides(element) if not side.isdigit()})


def test_what_is_read_is_what_the_grammar_reads() -> None:
    read = {text: expression for text in texts() if (expression := read_expression(text)) is not None}
    assert len(read) > 250
    # The root of a square of a real number is its size: equal, but values alone do not show it.
    corners = {r"\sqrt{x^2}", r"\sqrt{(x+1)^2}"}
    other = {text: by_grammar(text) for text in read if agree(by_grammar(text), read[text]) is not True}
    assert other.keys() <= corners, other


@pytest.mark.parametrize(
    "text",
    [
        "1/2x", r"2\frac{1}{2}", r"\frac{5}{2}\frac{1}{2}", "f(x)", "P(3)", "2(3)", r"\sin 2x", "x^10", "2^3^2", "i",
        "5E-1", "dx", "dozen", "1,234", "x_1", "5!", "|x|", "x = 5", "x <", "(x", "x)", "", "2 3", "x 3", r"\log 5",
        r"\frac{1}{0}", "9^{99999}", "x +", "* x", r"\sqrt[0]{2}", r"\frac{1}", r"\sin", "{", "((((",
    ],
)  # fmt: skip
def test_what_is_in_doubt_is_left_to_the_grammar(text: str) -> None:
    assert read_expression(text) is None


def test_deep_brackets_end_without_an_error() -> None:
    assert str(read_expression("(" * 40 + "x" + ")" * 40)) == "x"
    assert read_expression("x+" * 150 + "x") is not None
