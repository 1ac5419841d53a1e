"""Correction for sampling with slightly other log-probs than training computes, and how large the difference is."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from infimmr_jax.config import ImportanceSection
from infimmr_jax.objectives.kl import limited


def importance_weights(
    logprobs: Float[Array, "P G R"],
    behaviour: Float[Array, "P G R"],
    mask: Bool[Array, "P G R"],
    config: ImportanceSection,
) -> Float[Array, "P G R"]:
    """Weights exp(trainer - behaviour) for the policy term, without gradient.

    `logprobs` are the trainer's for the policy that sampled (the old log-probs), `behaviour` the sampler's for the same
    tokens. Truncated importance sampling clips the weights to [low, high]; masking sets those outside to 0. Source: Yao
    et al., "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training", 2025.
    """
    gap = jnp.where(mask, logprobs, 0.0) - jnp.where(mask, behaviour, 0.0)
    gap = jnp.where(mask, gap, 0.0)
    if config.level == "sequence":
        gap = jnp.broadcast_to(jnp.sum(gap, axis=-1, keepdims=True), gap.shape)
    ratio = jnp.exp(limited(gap))
    return jax.lax.stop_gradient(WEIGHTINGS[config.mode](ratio, config.low, config.high))


def mismatch(
    logprobs: Float[Array, "P G R"], behaviour: Float[Array, "P G R"], mask: Bool[Array, "P G R"]
) -> Float[Array, "P G R"]:
    """|trainer - behaviour| log-prob of every token, 0 outside `mask`."""
    gap = jnp.where(mask, logprobs, 0.0) - jnp.where(mask, behaviour, 0.0)
    return jax.lax.stop_gradient(jnp.where(mask, jnp.abs(gap), 0.0))


WEIGHTINGS = {
    "truncate": jnp.clip,
    "mask": lambda ratio, low, high: jnp.where((ratio >= low) & (ratio <= high), ratio, 0.0),
}

__all__ = ["WEIGHTINGS", "importance_weights", "mismatch"]
