"""Greedy decoding with a cache: 64 tokens identical to transformers' generate, for every kind of prompt at once."""

import jax
import numpy as np
import pytest
import torch

from infimmr_jax.rollout.sampler import sample
from infimmr_jax.rollout.state import SampleSettings

pytestmark = pytest.mark.parity
STEPS = 64


def prompts_of(pair):
    return [
        pair.image("how many cats are in the picture and what is the sum of the numbers"),
        pair.image("what", (6, 6)),
        pair.image("<image> and <image> how many", (4, 10), (10, 2)),
        pair.video("sum", (2, 6, 4), 1.0),
    ]


@pytest.mark.parametrize(
    "which",
    ["tied", pytest.param("untied", marks=pytest.mark.slow), pytest.param("real_heads", marks=pytest.mark.slow)],
)
def test_64_greedy_tokens(which, request):
    pair = request.getfixturevalue(which)
    prompts = prompts_of(pair)
    tokens = pair.config.tokens
    never = [tokens.eos, tokens.vision_start, tokens.vision_end, tokens.image, tokens.video]
    allowed = np.ones(pair.config.text.vocab_size, bool)
    allowed[never] = False
    settings = SampleSettings(group_size=1, max_response=STEPS, temperature=0.0)
    run = jax.jit(sample, static_argnums=(1, 2))
    ours, _ = run(pair.params, pair.model, settings, pair.batch(prompts), allowed, jax.random.key(0))

    for row, prompt in enumerate(prompts):
        pair.torch_model.model.rope_deltas = None
        inputs = pair.torch_inputs([prompt])
        with torch.no_grad():
            theirs = pair.torch_model.generate(
                **inputs, do_sample=False, max_new_tokens=STEPS, suppress_tokens=never, eos_token_id=tokens.eos
            )
        theirs = theirs[0, inputs["input_ids"].shape[1] :].numpy()
        assert len(theirs) == STEPS
        assert np.array_equal(np.asarray(ours.tokens)[row, 0], theirs), f"row {row}"
        assert len(set(theirs.tolist())) > 20  # A constant answer would prove little.
