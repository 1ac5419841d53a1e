"""Peak memory of an update with the published vocabulary, as the compiler plans it: chunked or unchunked log-probs.

    python studies/update_memory.py [CHUNK ..]      (0: the default)

The small decoder of `infimmr bench` with V = 151,936, one prompt of 512 tokens, 4 responses of 512 (T = 2,048),
float32, one AdamW step. `unchunked` is log_softmax of [T, V] logits under plain differentiation. Nothing is run.
"""

import dataclasses
import sys
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from infimmr_jax.bench import parts
from infimmr_jax.bench.timing import program_memory
from infimmr_jax.bench.work import SMALL, Size, Work, bench_tokenizer, exact_prompts, token_ids
from infimmr_jax.model.config import config_from_shape
from infimmr_jax.model.family import Model
from infimmr_jax.model.logprobs import log_distribution
from infimmr_jax.model.options import ModelOptions
from infimmr_jax.objectives import step
from infimmr_jax.preprocess.batching import collate
from infimmr_jax.rollout.state import Rollouts

SIZE = Size(prompts=1, prompt_tokens=512, image_size=448, group=4, new_tokens=512)


def unchunked(hidden, kernel, targets, allowed, temperature, chunk):
    log_probs = log_distribution(hidden, kernel, allowed, temperature)
    entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)
    return jnp.take_along_axis(log_probs, targets[..., None], axis=-1)[..., 0], entropy


def temporaries(chunk: int | None) -> float:
    """MB of temporaries of the update's program."""
    tokenizer = bench_tokenizer(2048)
    model = Model(config_from_shape(SMALL, 151_936, token_ids(tokenizer)), ModelOptions(scan=False))
    prompts = tuple(exact_prompts(SIZE, model, tokenizer))
    batch = collate(prompts, 1, SIZE.prompt_tokens - 1, prompts[0].image_shape, model.layout)
    params, allowed = model.abstract_params(), np.ones(model.vocab_size, bool)
    work = Work(SIZE, params, model, tokenizer, prompts, batch, allowed)
    shape = (1, SIZE.group, SIZE.new_tokens)
    numbers = jnp.zeros(shape, jnp.float32)
    state = jax.eval_shape(lambda params: parts._state(dataclasses.replace(work, params=params)), params)
    rollouts = Rollouts(
        tokens=jnp.zeros(shape, jnp.int32),
        mask=jnp.ones(shape, bool),
        logprobs=numbers,
        behaviour=numbers,
        finished=jnp.zeros(shape[:2], bool),
    )
    rewards = parts._rewards(np.zeros(shape[:2], np.float32))
    update = parts._update(work, parts.Ask(logprob_chunk=chunk or None))
    with mock.patch.object(step, "token_logprobs", unchunked if chunk is None else step.token_logprobs):
        rest = (rewards, allowed, parts.LEARNING_RATE, parts._NOTHING, jax.random.key(0))
        program = jax.jit(update, donate_argnums=0).lower(state, batch, rollouts, jnp.int32(1), *rest).compile()
    found = program_memory(program)
    print({None: "unchunked", 0: "default"}.get(chunk, chunk), found, flush=True)
    return sum(found.values()) - found["results"]  # The state is donated: results take its place.


if __name__ == "__main__":
    whole = temporaries(None)
    for chunk in map(int, sys.argv[1:] or ("0", "1024", "512", "256", "128")):
        print(chunk, f"{temporaries(chunk) / whole:.3f} of unchunked")
