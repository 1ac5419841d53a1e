"""Which token comes next: penalties, truncation, and one draw a row from its own stream of random numbers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from infimmr_jax.model.logprobs import NEVER


def penalise(logits: Float[Array, "*lead V"], seen: Bool[Array, "*lead V"], penalty: float) -> Float[Array, "*lead V"]:
    """Log-probabilities after the repetition penalty of CTRL (arXiv 1909.05858), in transformers' form.

    `logits` (scaled by the temperature, NEVER where a token is forbidden) of `seen` tokens are divided by the penalty
    where they are positive and multiplied by it where they are negative.
    """
    changed = jnp.where(logits > 0, logits / penalty, logits * penalty)
    return jax.nn.log_softmax(jnp.where(seen & (logits > NEVER / 2), changed, logits), axis=-1)


def truncate(
    log_probs: Float[Array, "*lead V"], top_k: int, top_p: float, min_p: float = 0.0
) -> Float[Array, "*lead V"]:
    """Renormalised log-probabilities after top-k, then top-p, then min-p; the likeliest token always stays.

    top-k keeps the k likeliest tokens, top-p (arXiv 1904.09751) of these the smallest set whose mass reaches p, min-p
    (arXiv 2407.01082) the tokens of at least `min_p` times the likeliest one's probability. Ties stay together.
    """
    if top_k == 0 and top_p == 1.0 and min_p == 0.0:
        return log_probs
    V = log_probs.shape[-1]
    k = min(top_k, V) if top_k else V
    if top_k or top_p < 1.0:
        ranked = jax.lax.top_k(log_probs, k)[0] if k < V else -jnp.sort(-log_probs, axis=-1)
        floor, best = ranked[..., -1], ranked[..., 0]
        if top_p < 1.0:
            mass = jnp.exp(ranked)
            # The mass before each token, as a share of what top-k left.
            before = (jnp.cumsum(mass, axis=-1) - mass) / jnp.sum(mass, axis=-1, keepdims=True)
            kept = jnp.sum(before < top_p, axis=-1)
            floor = jnp.maximum(floor, jnp.take_along_axis(ranked, kept[..., None] - 1, axis=-1)[..., 0])
    else:
        best = jnp.max(log_probs, axis=-1)
        floor = jnp.full_like(best, NEVER)
    if min_p > 0.0:
        floor = jnp.maximum(floor, best + jnp.log(min_p))
    kept_only = jnp.where(log_probs >= floor[..., None], log_probs, NEVER)
    return jax.nn.log_softmax(kept_only, axis=-1)


def draw(keys: Array, slot: Int[Array, ""], log_probs: Float[Array, "P G V"]) -> Int[Array, "P G"]:
    """One categorical sample per row by inversion: a single uniform number a row and token.

    The cumulative mass is taken over blocks of tokens first and then inside the one block that is hit: a running sum
    over a whole vocabulary costs more than the layers of a small model.
    """
    P, G, V = log_probs.shape
    rows = jax.vmap(jax.random.fold_in, (0, None))(keys.reshape(-1), slot)
    uniform = jax.vmap(lambda key: jax.random.uniform(key))(rows).reshape(P, G, 1)
    width = max(1, round(V**0.5))
    padded = jnp.pad(jnp.exp(log_probs), ((0, 0), (0, 0), (0, -V % width))).reshape(P, G, -1, width)
    ends = jnp.cumsum(jnp.sum(padded, axis=-1), axis=-1)
    # Scaling by the last entry keeps the draw inside the support although float sums miss 1 by a little.
    target = uniform * ends[..., -1:]
    block = jnp.minimum(jnp.sum(ends <= target, axis=-1), ends.shape[-1] - 1)[..., None]
    begin = jnp.where(block > 0, jnp.take_along_axis(ends, jnp.maximum(block - 1, 0), axis=-1), 0.0)
    inside = jnp.take_along_axis(padded, block[..., None], axis=-2)[..., 0, :]
    mass = begin + jnp.cumsum(inside, axis=-1)
    place = jnp.sum(mass <= target, axis=-1)
    # Rounding may put the target behind the block's last token: take the last one that has any mass.
    last = width - 1 - jnp.argmax(jnp.flip(inside, -1) > 0, axis=-1)
    return (block[..., 0] * width + jnp.minimum(place, last)).astype(jnp.int32)


def entropy_of(log_probs: Float[Array, "*lead V"]) -> Float[Array, "*lead"]:
    """Entropy in nats of distributions given as log-probabilities."""
    return -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)


def top_gap(log_probs: Float[Array, "*lead V"]) -> Float[Array, "*lead"]:
    """By how much the likeliest token's log-probability exceeds the second's."""
    best = jax.lax.top_k(log_probs, 2)[0]
    return best[..., 0] - best[..., 1]
