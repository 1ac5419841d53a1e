"""What the matrix products of decoding take when nothing else is computed: a bound for the token loop of a rollout.

    python -m studies.bare_products [--prompts 4] [--group 8] [--new-tokens 128] [--repeats 5]

Every product of the small policy's decoder layers and head, one after the other, with as many rows as there are
responses, once a token. Give it one core (`taskset -c 0`), as the comparison does.
"""

from __future__ import annotations

import argparse

import jax
import jax.numpy as jnp

from infimmr_jax.bench.counts import token_flops
from infimmr_jax.bench.timing import Timer
from infimmr_jax.bench.work import SMALL, SMALL_VOCABULARY, Size, bench_tokenizer, token_ids
from infimmr_jax.model.config import ModelConfig, config_from_shape


def matrices(config: ModelConfig, key: jax.Array) -> list[jax.Array]:
    """Random matrices in the shapes of one layer: to queries, keys, values, out; gate, up and down."""
    text = config.text
    E, F = text.hidden_size, text.intermediate_size
    heads, keys = text.num_heads * text.head_dim, text.num_kv_heads * text.head_dim
    shapes = [(E, heads), (E, keys), (E, keys), (heads, E), (E, F), (E, F), (F, E)]
    return [jax.random.normal(jax.random.fold_in(key, i), shape) / shape[0] for i, shape in enumerate(shapes)]


def main() -> None:
    """Print seconds and GFLOP/s."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    size = Size(prompts=options.prompts, group=options.group, new_tokens=options.new_tokens)
    config = config_from_shape(SMALL, SMALL_VOCABULARY, token_ids(bench_tokenizer(SMALL_VOCABULARY)))
    layers = [matrices(config, jax.random.key(layer)) for layer in range(config.text.num_layers)]
    head = jax.random.normal(jax.random.key(99), (config.text.hidden_size, config.text.vocab_size))

    def used(x):
        # Of all columns: the compiler would compute no others.
        return jnp.max(x, axis=1, keepdims=True)

    @jax.jit
    def loop(layers, head, x):
        def token(_, carry):
            x, seen = carry
            for q, k, v, out, gate, up, down in layers:
                x = (x @ q) @ out
                seen = seen + used(x @ k) + used(x @ v)
                x = (x @ gate + x @ up) @ down
            return x, seen + used(x @ head)

        return jax.lax.fori_loop(0, size.new_tokens, token, (x, jnp.zeros((size.rows, 1))))

    timer = Timer(options.repeats)
    x = jax.random.normal(jax.random.key(7), (size.rows, config.text.hidden_size))
    flops = token_flops(config, size.rows * size.new_tokens)
    timer.time("products", lambda: loop(layers, head, x), flops=flops)
    part = timer.parts["products"]
    print(f"{timer.seconds(part):.2f} s, {part['gflop']:.1f} GFLOP, {part['gflop_per_second']:.0f} GFLOP/s")


if __name__ == "__main__":
    main()
