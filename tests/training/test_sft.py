"""The cold start: what a demonstration says, what trains, and at which rate."""

import dataclasses
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import ALLOWED, MODEL, PAD, prompts, rollouts, train_state

from infimmr_jax.config import GrpoSection, OptimizerSection, PromptSection, SftSection
from infimmr_jax.data.records import DataError, Problem
from infimmr_jax.objectives.supervised import SftBatch, sft_step
from infimmr_jax.objectives.train_state import make_optimizer
from infimmr_jax.preprocess.demonstrations import demonstration, encode_response
from infimmr_jax.preprocess.prompts import INSTRUCTIONS
from infimmr_jax.rewards.format import format_error
from infimmr_jax.training.demonstration_batches import stage_of, supervised_rate

SOURCES = {"text": [{"reader": "synthetic", "families": ["bars"], "size": 10}]}
SFT = SftSection.model_validate(
    {
        "stages": [{"steps": 10}, {"steps": 5, "worked_share": 0.2, "learning_rate": 1e-3, "final_share": 0.5}],
        "sources": SOURCES,
        "learning_rate": 4e-3,
        "warmup_steps": 4,
    }
)
PROBLEM = Problem("a", "1 + 1?", "2", "math", solution="1 + 1 = 2.")


def test_a_worked_demonstration_has_the_format_that_is_rewarded():
    assert format_error(demonstration(PROBLEM, True, "think_boxed"), "think_boxed") is None
    assert format_error(demonstration(PROBLEM, False, "think_boxed"), "think_boxed") is not None
    assert format_error(demonstration(PROBLEM, True, "boxed"), "boxed") is None


@pytest.mark.parametrize("response_format", get_args(PromptSection.model_fields["format"].annotation))
def test_every_format_that_can_be_asked_for_can_be_demonstrated(response_format):
    assert format_error(demonstration(PROBLEM, True, response_format), response_format) is None
    assert "2" in demonstration(PROBLEM, False, response_format)
    assert response_format in INSTRUCTIONS


def test_a_problem_without_solution_answers_directly():
    bare = dataclasses.replace(PROBLEM, solution=None)
    assert demonstration(bare, True, "think_boxed") == "\\boxed{2}"


def test_stages_and_their_learning_rates():
    assert [stage_of(step, SFT) for step in (0, 9, 10, 14)] == [0, 0, 1, 1]
    rates = [supervised_rate(step, SFT) for step in range(15)]
    assert rates[0] == pytest.approx(1e-3)
    assert rates[5] == pytest.approx(4e-3 * (1 - 0.9 * 0.5))
    assert rates[10] == pytest.approx(1e-3)
    assert rates[14] == pytest.approx(1e-3 * (1 - 0.5 * 0.8))


def test_a_long_demonstration_is_refused_not_cut():
    class Letters:
        def encode(self, text, add_special_tokens):
            return list(range(len(text)))

    assert len(encode_response("four", Letters(), 1, 5, "a")) == 5
    with pytest.raises(DataError, match=r"problem a has 6 tokens, over sft\.max_response = 5"):
        encode_response("fives", Letters(), 1, 5, "a")


def test_only_response_tokens_train():
    sampled = rollouts(4, 1, 6)
    optimizer = make_optimizer(OptimizerSection())

    def loss(tokens):
        batch = SftBatch(prompts(4), tokens, sampled.mask)
        state = train_state(GrpoSection(), OptimizerSection())
        _, metrics = jax.jit(
            lambda state, batch: sft_step(state, batch, ALLOWED, jnp.float32(1e-3), MODEL, optimizer, 64)
        )(state, batch)
        return float(metrics["loss"]), float(metrics["policy/grad_norm"])

    other_padding = np.where(sampled.mask, sampled.tokens, 9).astype(np.int32)
    assert (sampled.tokens[~sampled.mask] == PAD).all()
    assert loss(sampled.tokens) == pytest.approx(loss(other_padding), rel=1e-6)


def test_the_same_demonstration_is_learnt():
    sampled = rollouts(4, 1, 6)
    optimizer = make_optimizer(OptimizerSection())
    state = train_state(GrpoSection(), OptimizerSection())
    batch = SftBatch(prompts(4), sampled.tokens, sampled.mask)
    step = jax.jit(lambda state: sft_step(state, batch, ALLOWED, jnp.float32(3e-3), MODEL, optimizer, 64))
    losses = []
    for _ in range(60):
        state, metrics = step(state)
        losses.append(float(metrics["loss"]))
    assert losses[0] > 3
    assert losses[-1] < 0.5
