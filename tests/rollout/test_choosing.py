"""Penalty and truncation against transformers' own logits processors; draws from large vocabularies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from infimmr_jax.model.logprobs import NEVER
from infimmr_jax.rollout.choosing import draw, entropy_of, penalise, top_gap, truncate


@pytest.mark.parametrize(
    ("top_k", "top_p", "min_p"),
    [(5, 1.0, 0.0), (0, 0.7, 0.0), (0, 1.0, 0.2), (10, 0.6, 0.0), (20, 0.9, 0.1), (1, 0.5, 0.9), (99, 0.3, 0.0)],
)
def test_truncation_is_transformers(top_k, top_p, min_p):
    logits = torch.tensor(np.random.default_rng(0).normal(size=(8, 40)) * 2)
    expected = logits
    for used, warper in (
        (top_k, lambda: TopKLogitsWarper(top_k)),
        (top_p < 1, lambda: TopPLogitsWarper(top_p)),
        (min_p, lambda: MinPLogitsWarper(min_p)),
    ):
        if used:
            expected = warper()(None, expected)
    expected = torch.log_softmax(expected, -1).numpy()
    found = np.asarray(truncate(jax.nn.log_softmax(jnp.asarray(logits.numpy())), top_k, top_p, min_p))
    assert np.array_equal(found > NEVER / 2, np.isfinite(expected))
    np.testing.assert_allclose(found[np.isfinite(expected)], expected[np.isfinite(expected)], atol=1e-5)


@pytest.mark.parametrize(("penalty", "temperature"), [(1.3, 1.0), (0.8, 0.5)])
def test_repetition_penalty_is_transformers(penalty, temperature):
    rng = np.random.default_rng(1)
    logits, ids = rng.normal(size=(3, 20)) * 3, rng.integers(0, 20, (3, 6))
    expected = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor(ids), torch.tensor(logits))
    expected = torch.log_softmax(TemperatureLogitsWarper(temperature)(None, expected), -1).numpy()
    seen = np.zeros((3, 20), bool)
    np.put_along_axis(seen, ids, True, axis=1)
    found = penalise(jnp.asarray(logits / temperature), jnp.asarray(seen), penalty)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    forbidden = jnp.asarray(logits).at[:, 4].set(NEVER)
    assert float(penalise(forbidden, jnp.asarray(seen), penalty)[:, 4].max()) < NEVER / 2


def test_draws_from_a_large_vocabulary_follow_the_distribution_and_skip_what_is_forbidden():
    V, rows = 1000, 60_000
    rng = np.random.default_rng(2)
    logits = rng.normal(size=V) * 2
    logits[rng.random(V) < 0.3] = NEVER
    logits[-37:] = NEVER
    log_probs = jax.nn.log_softmax(jnp.asarray(logits, jnp.float32))
    keys = jax.random.split(jax.random.key(0), rows).reshape(rows, 1)
    tokens = np.asarray(jax.jit(lambda k: draw(k, jnp.asarray(5), jnp.broadcast_to(log_probs, (rows, 1, V))))(keys))
    share = np.bincount(tokens.ravel(), minlength=V) / rows
    probabilities = np.exp(np.asarray(log_probs, np.float64))
    assert (share[logits <= NEVER / 2] == 0).all()
    assert np.abs(share - probabilities).max() < 5 * (probabilities.max() / rows) ** 0.5


def test_entropy_and_gap_are_their_formulas():
    p = np.asarray([[0.5, 0.25, 0.25, 0.0], [0.1, 0.2, 0.3, 0.4]])
    log_probs = jnp.log(jnp.maximum(jnp.asarray(p), 1e-30))
    safe = np.where(p > 0, p, 1)
    np.testing.assert_allclose(entropy_of(log_probs), -(p * np.log(safe)).sum(-1), atol=1e-5)
    np.testing.assert_allclose(top_gap(log_probs), [np.log(2), np.log(4 / 3)], atol=1e-5)
