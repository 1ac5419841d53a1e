"""Hostile responses: no hang, no crash of the pool, no reward, no code executed; the whole set within 60 s."""

import time
from pathlib import Path

import numpy as np
from hostile import cases

from infimmr_jax.config import RewardSection
from infimmr_jax.rewards.pool import GraderPool
from infimmr_jax.rewards.router import score_groups


def test_no_hostile_response_is_rewarded(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    found = cases(str(canary))
    assert len(found) >= 300
    problems = [problem for _, problem, _ in found]
    shape = (len(found), 1)
    started = time.monotonic()
    with GraderPool(workers=2, deadline_seconds=3.0) as pool:
        scores = score_groups(
            problems, [[text] for _, _, text in found], np.ones(shape, bool), np.ones(shape, int),
            RewardSection(), "think_boxed", pool,
        )  # fmt: skip
    seconds = time.monotonic() - started
    rewarded = [
        (name, scores.reasons[row][0])
        for row, (name, _, _) in enumerate(found)
        if scores.components["accuracy"][row, 0] != 0
    ]
    assert rewarded == []
    assert seconds < 60, f"{seconds:.0f} s; {scores.counters}"
    assert not canary.exists()
    assert scores.counters["graded"] >= 250
