"""The sampling loop: what it records is what the trainer computes, and rows do not disturb each other."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import ALLOWED, EOS, MODEL, PAD, prompts

from infimmr_jax.objectives.step import response_logprobs
from infimmr_jax.rollout.choosing import draw, truncate
from infimmr_jax.rollout.sampler import sample
from infimmr_jax.rollout.state import SampleSettings

PARAMS = jax.jit(MODEL.init)(jax.random.key(0))


def run(settings: SampleSettings, batch=None, seed: int = 0):
    function = functools.partial(sample, model=MODEL, settings=settings)
    batch = prompts(6) if batch is None else batch
    return jax.device_get(jax.jit(function)(PARAMS, batch=batch, allowed=ALLOWED, key=jax.random.key(seed))[0])


def trainer_logprobs(batch, rollouts, temperature: float):
    from small import settings

    from infimmr_jax.config import GrpoSection

    chosen = dataclasses.replace(settings(GrpoSection(logprob_chunk=7)), temperature=temperature)
    return response_logprobs(PARAMS, chosen, batch, rollouts.tokens, ALLOWED)[0]


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_recorded_log_probs_are_the_trainers(temperature):
    batch = prompts(6)
    rollouts = run(SampleSettings(4, 12, temperature), batch)
    found = trainer_logprobs(batch, rollouts, temperature)
    np.testing.assert_allclose(np.where(rollouts.mask, found, 0), rollouts.logprobs, atol=1e-5)
    assert np.array_equal(rollouts.behaviour, rollouts.logprobs)


def test_masks_end_tokens_and_padding_fit_together():
    rollouts = run(SampleSettings(8, 40, temperature=2.0))
    lengths = rollouts.mask.sum(-1)
    inside = np.arange(40) < lengths[..., None]
    assert np.array_equal(rollouts.mask, inside)
    assert (rollouts.tokens[~rollouts.mask] == PAD).all()
    last = np.take_along_axis(rollouts.tokens, lengths[..., None] - 1, axis=-1)[..., 0]
    assert np.array_equal(last == EOS, rollouts.finished)
    assert ((rollouts.tokens == EOS).sum(-1) == rollouts.finished).all()
    assert rollouts.finished.any(), "no response ended: the test says nothing"
    assert ALLOWED[rollouts.tokens[rollouts.mask]].all(), "a forbidden token was sampled"


def test_greedy_tokens_are_those_of_a_full_forward_at_every_length():
    batch = prompts(3)
    rollouts = run(SampleSettings(1, 10, temperature=0.0), batch)
    trunk = MODEL.trunk(PARAMS, batch)
    scores = MODEL.logits(PARAMS, MODEL.branch(PARAMS, trunk, jnp.asarray(rollouts.tokens)))
    best = np.asarray(jnp.argmax(jnp.where(ALLOWED, scores, -jnp.inf), axis=-1))
    assert np.array_equal(np.where(rollouts.mask, best, PAD), rollouts.tokens)


def test_a_row_does_not_depend_on_the_other_prompts():
    batch, settings = prompts(6), SampleSettings(2, 12)
    other = prompts(6, seed=9)
    mixed = jax.tree.map(lambda a, b: np.concatenate([a[:3], b[3:]]), batch, other)
    assert np.array_equal(run(settings, batch).tokens[:3], run(settings, mixed).tokens[:3])


def test_seeds_and_group_members_differ_but_repeat():
    first, again, second = (run(SampleSettings(4, 12), seed=seed).tokens for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first[:, 0], first[:, 1])


def test_filler_rows_are_not_sampled():
    batch = prompts(6)
    batch = dataclasses.replace(batch, row_mask=np.arange(6) < 4)
    rollouts = run(SampleSettings(2, 8), batch)
    assert not rollouts.mask[4:].any()
    assert rollouts.mask[:4].any(-1).all()


def test_draws_follow_the_distribution():
    probabilities = np.asarray([0.5, 0.0, 0.3, 0.2, 0.0])
    log_probs = jnp.log(jnp.maximum(jnp.asarray(probabilities), 1e-30))
    rows = 20_000
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), jnp.arange(rows)).reshape(rows, 1)
    tokens = draw(keys, jnp.asarray(3), jnp.broadcast_to(log_probs, (rows, 1, 5)))
    share = np.bincount(np.asarray(tokens).ravel(), minlength=5) / rows
    assert share[1] == share[4] == 0
    np.testing.assert_allclose(share, probabilities, atol=4 * 0.5 / rows**0.5)


def test_truncation_keeps_the_smallest_set_that_reaches_top_p():
    log_probs = jnp.log(jnp.asarray([0.1, 0.4, 0.2, 0.3]))
    kept = np.exp(np.asarray(truncate(log_probs, 0, 0.6)))
    np.testing.assert_allclose(kept, [0, 4 / 7, 0, 3 / 7], atol=1e-6)
    kept = np.exp(np.asarray(truncate(log_probs, 3, 1.0)))
    np.testing.assert_allclose(kept, [0, 4 / 9, 2 / 9, 3 / 9], atol=1e-6)
    kept = np.exp(np.asarray(truncate(log_probs, 2, 0.01)))
    np.testing.assert_allclose(kept, [0, 1, 0, 0], atol=1e-6)


def test_top_p_is_in_the_behaviour_log_probs_alone():
    batch = prompts(6)
    rollouts = run(SampleSettings(4, 8, temperature=1.0, top_p=0.5), batch)
    np.testing.assert_allclose(
        np.where(rollouts.mask, trainer_logprobs(batch, rollouts, 1.0), 0), rollouts.logprobs, atol=1e-5
    )
    assert (rollouts.behaviour >= rollouts.logprobs - 1e-6).all()
    assert (rollouts.behaviour > rollouts.logprobs + 0.1).any()
