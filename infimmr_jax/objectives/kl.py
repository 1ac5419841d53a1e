"""Estimates of the divergence of the policy from a reference, in the loss or in the reward."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from infimmr_jax.config import GrpoSection

# Beyond this log-ratio exp() says nothing about the policy any more, it only overflows; EasyR1 and verl use 20 as well.
LOG_RATIO_LIMIT = 20.0


def limited(log_ratio: Array) -> Array:
    """A log-ratio within +-LOG_RATIO_LIMIT; beyond it the gradient is 0."""
    return jnp.clip(log_ratio, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)


def _k3(log_ratio: Array) -> Array:
    back = limited(-log_ratio)
    # expm1 keeps the difference exact where the two policies are close, which is where training lives.
    return jnp.expm1(back) - back


KL_ESTIMATORS: dict[str, Callable[[Array], Array]] = {
    "k1": lambda log_ratio: log_ratio,
    "k2": lambda log_ratio: 0.5 * log_ratio**2,
    "k3": _k3,
}


def kl_estimate(
    logprobs: Float[Array, "*shape"], reference: Float[Array, "*shape"], mask: Bool[Array, "*shape"], kind: str
) -> Float[Array, "*shape"]:
    """Per-token estimate of KL(policy || reference) from tokens of the policy, 0 outside `mask`.

    With d = logprobs - reference: k1 = d, k2 = d^2 / 2, k3 = exp(-d) - 1 + d (Schulman, "Approximating KL Divergence",
    2020). In a loss, k1's gradient has expectation 0: it regularises only in the reward.
    """
    return jnp.where(mask, KL_ESTIMATORS[kind](jnp.where(mask, logprobs, 0.0) - jnp.where(mask, reference, 0.0)), 0.0)


def penalty_to_go(
    logprobs: Float[Array, "P G R"],
    reference: Float[Array, "P G R"],
    mask: Bool[Array, "P G R"],
    config: GrpoSection,
    coefficient: Float[Array, ""] | float,
) -> Float[Array, "P G R"]:
    """What `kl.place: reward` takes from each token's advantage: the coefficient times the KL from it to the end.

    `logprobs` are those of the policy that sampled; no gradient flows through the penalty. Each token's reward is
    minus its own KL estimate, and its advantage the sum of what is still to come, as in OpenRLHF.
    """
    divergence = kl_estimate(logprobs, reference, mask, config.kl.estimator)
    return jax.lax.stop_gradient(coefficient * jax.lax.cumsum(divergence, axis=divergence.ndim - 1, reverse=True))


def kl_sample_weights(
    advantages: Float[Array, "P G"], accuracy: Float[Array, "P G"], config: GrpoSection
) -> Float[Array, "P G"]:
    """Weight of each response's KL term: 1, or APO's difficulty-adaptive weight with `kl.sample_weight: apo`.

    With d = 1 - accuracy of the group, responses with a positive advantage get 1 - exp(-e (1 - d)) for 0 < d < 1 (e is
    Euler's number), so that hard questions may move further; all others get 1. Source: APO (View-R1), DADS.
    """
    if config.kl.sample_weight == "none":
        return jnp.ones_like(advantages)
    right = jnp.mean((accuracy >= config.group_weight.correct_from).astype(advantages.dtype), axis=1, keepdims=True)
    eased = 1.0 - jnp.exp(-jnp.e * right)
    mixed = (right > 0) & (right < 1)
    return jnp.where(mixed & (advantages > 0), eased, 1.0)


__all__ = ["KL_ESTIMATORS", "LOG_RATIO_LIMIT", "kl_estimate", "kl_sample_weights", "limited", "penalty_to_go"]
