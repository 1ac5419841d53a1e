"""Grading overlaps with device work: a thread waits for graders while the device goes on."""

import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from infimmr_jax.rewards.pool import GraderPool
from infimmr_jax.rewards.verdict import Question, Verdict


def test_device_steps_run_while_answers_are_graded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infimmr_jax.rewards.pool.WORKER", "failing_worker")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    step = jax.jit(lambda x: jnp.tanh(x @ x))
    state = step(jnp.eye(64)).block_until_ready()
    verdicts: list[Verdict] = []
    with GraderPool(workers=1, deadline_seconds=0.5) as pool:
        pool.verify([Question("math gold", "gold", "warm")])
        asked = [Question("math gold", "gold", f"sleep {i}") for i in range(2)]
        thread = threading.Thread(target=lambda: verdicts.extend(pool.verify(asked)))
        thread.start()
        steps, started = 0, time.monotonic()
        while thread.is_alive() and time.monotonic() - started < 60:
            state = step(state).block_until_ready()
            steps += 1
        thread.join(timeout=60)
    assert [verdict.reason for verdict in verdicts] == ["timeout", "timeout"]
    assert steps > 20  # five seconds of waiting for graders, and the device was never waiting
