"""Gradients of a sequence log-prob for every parameter, the vision tower's included, against torch's autograd."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from pair import torch_state

from infimmr_jax.model.logprobs import token_logprobs

pytestmark = [pytest.mark.parity, pytest.mark.slow]


def prompts_of(pair):
    return [pair.image("<image> and <image> how many", (6, 10), (2, 4)), pair.video("sum", (2, 6, 4), 1.0)]


def torch_gradients(pair, prompts, responses):
    pair.torch_model.zero_grad()
    pair.torch_model.model.rope_deltas = None
    inputs = pair.torch_inputs(prompts, responses)
    logits = pair.torch_model(**inputs).logits
    total = 0.0
    for row, prompt in enumerate(prompts):
        start, length = len(prompt.tokens), responses.shape[1]
        log_probs = torch.log_softmax(logits[row, start - 1 : start - 1 + length], dim=-1)
        total = total + log_probs[torch.arange(length), torch.from_numpy(responses[row]).long()].sum()
    total.backward()
    gradients = {name: p.grad.numpy().copy() for name, p in pair.torch_model.named_parameters()}
    pair.torch_model.zero_grad()
    return total.item(), gradients


@pytest.mark.parametrize(
    "which",
    ["tied", pytest.param("untied", marks=pytest.mark.slow), pytest.param("real_heads", marks=pytest.mark.slow)],
)
def test_gradients_of_a_sequence_logprob(which, request):
    pair = request.getfixturevalue(which)
    prompts = prompts_of(pair)
    responses = np.random.default_rng(4).integers(10, 250, size=(2, 6)).astype(np.int32)
    batch = pair.batch(prompts, rows=2)
    allowed = jnp.ones(pair.config.text.vocab_size, bool)

    @jax.jit
    def loss(params):
        trunk = pair.model.trunk(params, batch)
        hidden = pair.model.branch(params, trunk, responses[:, None])
        kernel = pair.model.head_kernel(params)
        return token_logprobs(hidden, kernel, responses[:, None], allowed, chunk=4)[0].sum()

    ours, gradients = jax.value_and_grad(loss)(jax.tree.map(jnp.asarray, pair.params))
    theirs, expected = torch_gradients(pair, prompts, responses)
    assert abs(ours - theirs) < 1e-4 * abs(theirs)
    found = torch_state(gradients, pair.config)
    assert set(found) == set(expected)
    # A key bias shifts all scores of a query alike: its gradient is rounding noise around 0 in both.
    largest = max(np.abs(value).max() for value in expected.values())
    for name, value in expected.items():
        error = np.linalg.norm(found[name] - value) / max(np.linalg.norm(value), 1e-4 * largest)
        assert error < 1e-3, f"{name}: {error}"
        assert np.abs(value).max() > 0, name
