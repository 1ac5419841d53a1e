"""The router: groups in, one number per component out."""

import numpy as np

from infimmr_jax.config import RewardSection
from infimmr_jax.data.records import Problem
from infimmr_jax.rewards.pool import GraderPool
from infimmr_jax.rewards.router import score_groups

PROBLEMS = [
    Problem("a", "q", "12", "math"),
    Problem("b", "q", "B", "choice", choices=("red", "blue", "green")),
    Problem("c", "q", "true", "string"),
]
RESPONSES = [
    [r"<think>7+5</think> \boxed{12}", r"\boxed{12}", r"<think>7+5</think> \boxed{13}", r"<think>\boxed{12}"],
    [r"<think>blue it is</think> \boxed{B}", r"<think>x</think>\boxed{blue}", r"<think>x</think>\boxed{A}", "B"],
    [r"<think>y</think>\boxed{True}", r"<think></think>\boxed{true}", r"<think>n</think>\boxed{false}", ""],
]


def test_components_total_and_reasons() -> None:
    reward = RewardSection(weights={"accuracy": 0.9, "format": 0.1})
    finished = np.ones((3, 4), bool)
    with GraderPool(workers=1) as pool:
        scores = score_groups(PROBLEMS, RESPONSES, finished, np.full((3, 4), 9), reward, "think_boxed", pool)
    np.testing.assert_array_equal(scores.components["accuracy"], [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]])
    np.testing.assert_array_equal(scores.components["format"], [[1, 0, 1, 0], [1, 1, 1, 0], [1, 0, 1, 0]])
    np.testing.assert_allclose(scores.total, 0.9 * scores.components["accuracy"] + 0.1 * scores.components["format"])
    assert scores.total.dtype == np.float32
    assert scores.extracted[0] == ["12", "12", "13", None]
    assert scores.reasons[0] == [
        "box; numbers equal",
        "box; numbers equal | format: <think> is missing",
        "box; numbers differ",
        "thinking does not end | format: </think> is missing",
    ]
    assert scores.counters["graded"] == 9
