"""The router: groups in, one number per component out."""

import numpy as np
import pytest

from infimmr_jax.config import RewardSection
from infimmr_jax.data.records import Problem
from infimmr_jax.rewards import extract as extraction
from infimmr_jax.rewards import verifiers
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


def test_a_crash_in_the_trainer_is_a_zero_with_a_reason_and_a_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(*_: object) -> None:
        raise OverflowError("int too large")

    problem = Problem("p", "Where?", "[0, 0, 4, 4]", "box")
    ones = np.ones((1, 2), int)
    texts = [[r"<think>x</think> \boxed{[0, 0, 4, 4]}", "nothing"]]
    with GraderPool(workers=1) as pool:
        monkeypatch.setitem(verifiers.QUICK, "box", raises)
        scores = score_groups([problem], texts, ones > 0, ones, RewardSection(), "think_boxed", pool)
        assert scores.components["accuracy"].tolist() == [[0, 0]]
        assert scores.counters["crashes"] == 1
        assert "crash: OverflowError" in scores.reasons[0][0]
        monkeypatch.setattr(extraction, "extract", raises)
        scores = score_groups([problem], texts, ones > 0, ones, RewardSection(), "think_boxed", pool)
        assert scores.counters["crashes"] == 2
        assert scores.extracted == [[None, None]]
