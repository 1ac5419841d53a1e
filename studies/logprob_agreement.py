"""How far the log-probs that the sampler records are from those that the training forward computes again.

    python -m studies.logprob_agreement [--dtypes float32 bfloat16] [--prompts 4] [--group 4] [--new-tokens 64]

The small policy of `infimmr bench` with random weights; absolute differences of every sampled token's log-prob.
"""

from __future__ import annotations

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from infimmr_jax.bench.work import Size, Work, load_work
from infimmr_jax.config import GrpoSection
from infimmr_jax.model.logprobs import token_logprobs
from infimmr_jax.rollout.sampler import sample
from infimmr_jax.rollout.state import SampleSettings


def differences(work: Work) -> Float[np.ndarray, "N"]:
    """Sampled against recomputed log-probs of all tokens."""
    size, model, allowed = work.size, work.model, jnp.asarray(work.allowed)
    settings = SampleSettings(size.group, size.new_tokens)
    chunk = GrpoSection().chunk_for(model.vocab_size)

    def again(params, batch, tokens):
        hidden = model.branch(params, model.trunk(params, batch), tokens)
        return token_logprobs(hidden, model.head_kernel(params), tokens, allowed, 1.0, chunk)[0]

    def sampled(params, batch, key):
        return sample(params, model, settings, batch, allowed, key)[0]

    rollouts = jax.jit(sampled)(work.params, work.batch, jax.random.key(0))
    return np.abs(np.asarray(jax.jit(again)(work.params, work.batch, rollouts.tokens) - rollouts.logprobs)).ravel()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--group", type=int, default=4)
    parser.add_argument("--new-tokens", type=int, default=64)
    options = parser.parse_args()
    size = Size(prompts=options.prompts, group=options.group, new_tokens=options.new_tokens)
    print("| dtype | tokens | median | 99th percentile | largest |\n|---|---|---|---|---|")
    for dtype in options.dtypes:
        found = differences(load_work(size, dtype=dtype))
        middle, high, largest = np.quantile(found, (0.5, 0.99, 1.0))
        print(f"| {dtype} | {found.size:,} | {middle:.2g} | {high:.2g} | {largest:.2g} |", flush=True)


if __name__ == "__main__":
    main()
