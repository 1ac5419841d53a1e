"""Micro-batches by a budget of tokens: few, equal, and without influence on the update."""

import functools

import jax
import numpy as np
import pytest
from small import ALLOWED, prompts, rewards, rollouts, settings, train_state

from infimmr_jax.config import GrpoSection, OptimizerSection
from infimmr_jax.objectives import step
from infimmr_jax.objectives.micro import micro_batches
from infimmr_jax.objectives.schedules import Coefficients
from infimmr_jax.objectives.train_state import make_optimizer


@pytest.mark.parametrize(
    ("tokens", "prompts_", "parts"),
    [(10_000, 8, 1), (8 * 500, 8, 1), (8 * 500 - 1, 8, 2), (1000, 8, 4), (999, 8, 8), (10, 8, 8), (1600, 6, 2)],
)
def test_fewest_parts_within_the_budget(tokens, prompts_, parts):
    """Prompts of 100 tokens with 4 responses of 100."""
    assert micro_batches(GrpoSection(micro_batch_tokens=tokens), prompts_, 100, 4, 100) == parts


def test_the_given_number_counts_without_a_budget_and_both_are_refused():
    assert micro_batches(GrpoSection(micro_batches=3), 8, 100, 4, 100) == 3
    with pytest.raises(ValueError, match="not both"):
        GrpoSection(micro_batches=2, micro_batch_tokens=1000)


def test_the_update_is_split_by_its_budget(monkeypatch):
    """That a split changes nothing is shown in test_step.py; here only that the budget chooses it."""
    P, G, R, chosen = 4, 2, 6, []
    whole = step._whole_gradient
    monkeypatch.setattr(step, "_whole_gradient", lambda *args: chosen.append(args[-1]) or whole(*args))
    optimizer, zero = OptimizerSection(), np.float32(0)
    grpo = GrpoSection(micro_batch_tokens=2 * (24 + G * R))
    update = functools.partial(step.grpo_update, settings=settings(grpo), optimizer=make_optimizer(optimizer))
    sampled = rollouts(P, G, R), np.int32(R), rewards(P, G)
    args = (prompts(P), *sampled, ALLOWED, np.float32(1e-3), Coefficients(zero, zero, zero))
    jax.eval_shape(update, train_state(grpo, optimizer), *args, jax.random.key(0))
    assert chosen == [2]
