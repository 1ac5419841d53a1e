"""Solved conditions read as intervals, and nothing else."""

import pytest

from infimmr_jax.rewards.math.conditions import as_intervals
from infimmr_jax.rewards.math.latex import tidy


@pytest.mark.parametrize(
    ("text", "interval"),
    [
        ("x < 3", r"(-\infty,3)"),
        ("3 > x", r"(-\infty,3)"),
        (r"x \geq 2", r"[2,\infty)"),
        (r"1 < x \leq 5", "(1,5]"),
        (r"5 \ge x > 1", "(1,5]"),
        (r"x < -5 \text{ or } 7 \le x", r"(-\infty,-5) \cup [7,\infty)"),
        (r"\{x \mid x > 3\}", r"(3,\infty)"),
        (r"\{x \in \mathbb{R}: x > 3\}", r"(3,\infty)"),
        (r"\{y \mid x > 3\}", None),
        ("x < 1 or y > 2", None),
        ("x > x + 3", None),
        ("x - 3 < 0", None),
        ("1 < x > 0", None),
        ("x <", None),
        ("x < 1, x > 2", None),
        ("x = 3", None),
        ("[1, 2]", None),
    ],
)
def test_conditions_as_intervals(text: str, interval: str | None) -> None:
    tidied = tidy(text)
    assert as_intervals(tidied) == (tidied if interval is None else interval)
