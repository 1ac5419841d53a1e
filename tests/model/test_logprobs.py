"""Chunked log-probs and entropies: values and gradients against PyTorch's in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from infimmr_jax.model.logprobs import token_logprobs

P, G, R, E, V = 2, 3, 7, 8, 50


@pytest.fixture(scope="module")
def work():
    rng = np.random.default_rng(0)
    allowed = rng.random(V) < 0.8
    targets = rng.choice(np.flatnonzero(allowed), (P, G, R))
    weights = rng.normal(size=(2, P, G, R))
    return rng.normal(size=(P, G, R, E)), rng.normal(size=(E, V)), targets, allowed, weights


def by_torch(hidden, kernel, targets, allowed, weights, temperature):
    hidden, kernel = (torch.tensor(x, requires_grad=True) for x in (hidden, kernel))
    logits = (hidden @ kernel / temperature).masked_fill(~torch.tensor(allowed), float("-inf"))
    log_p = torch.log_softmax(logits, -1)
    found = log_p.gather(-1, torch.tensor(targets)[..., None])[..., 0]
    entropy = -(log_p.exp() * log_p.masked_fill(~torch.tensor(allowed), 0.0)).sum(-1)
    (found * torch.tensor(weights[0]) + entropy * torch.tensor(weights[1])).sum().backward()
    return found.detach(), entropy.detach(), hidden.grad, kernel.grad


@pytest.mark.parametrize("chunk", [1, 13, 1024])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_values_and_gradients_are_torchs(work, chunk, temperature):
    hidden, kernel, targets, allowed, weights = work

    def loss(hidden, kernel):
        found, entropy = token_logprobs(hidden, kernel, jnp.asarray(targets), jnp.asarray(allowed), temperature, chunk)
        return jnp.sum(found * weights[0] + entropy * weights[1]), (found, entropy)

    arrays = jnp.asarray(hidden, jnp.float32), jnp.asarray(kernel, jnp.float32)
    gradients, values = jax.grad(loss, argnums=(0, 1), has_aux=True)(*arrays)
    for found, expected in zip((*values, *gradients), by_torch(*work, temperature), strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-5)
    forbidden = np.flatnonzero(~allowed)
    assert (np.asarray(gradients[1])[:, forbidden] == 0).all()


def test_gradients_keep_their_dtypes(work):
    hidden, kernel, targets, allowed, _ = work

    def loss(hidden, kernel):
        return token_logprobs(hidden, kernel, jnp.asarray(targets), jnp.asarray(allowed), 1.0, 8)[0].sum()

    found = jax.grad(loss, argnums=(0, 1))(jnp.asarray(hidden, jnp.bfloat16), jnp.asarray(kernel, jnp.float32))
    assert found[0].dtype == jnp.bfloat16
    assert found[1].dtype == jnp.float32
    whole = jax.grad(loss, argnums=1)(jnp.asarray(hidden, jnp.float32), jnp.asarray(kernel, jnp.float32))
    assert float(jnp.abs(found[1] - whole).max()) < 0.1 * float(jnp.abs(whole).max())
