"""The policy loss: ratio and clipping by objective, aggregation with global denominators, KL, entropy, PAPO's term."""

from __future__ import annotations

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Bool, Float

from infimmr_jax.config import GrpoSection
from infimmr_jax.objectives.importance import importance_weights, mismatch
from infimmr_jax.objectives.kl import kl_estimate, limited
from infimmr_jax.objectives.metrics import Metrics
from infimmr_jax.objectives.perception import perception_gap
from infimmr_jax.objectives.schedules import Coefficients


@flax.struct.dataclass
class Denominators:
    """What the loss of one optimiser step is divided by, counted once over its whole batch.

    Micro-batches divide by these same numbers, so their losses add up to the loss of the batch whatever the split.
    """

    tokens: Float[Array, ""]
    sequences: Float[Array, ""]
    constant: Float[Array, ""]


def training_mask(
    mask: Bool[Array, "P G R"], truncated: Bool[Array, "P G"], config: GrpoSection
) -> Bool[Array, "P G R"]:
    """The tokens that train: all sampled ones, or with `overlong.mode: mask` only those of responses that ended."""
    return mask & ~truncated[..., None] if config.overlong.mode == "mask" else mask


def denominators(mask: Bool[Array, "P G R"], max_response: int | None = None) -> Denominators:
    """Denominators of a whole batch from its `training_mask`.

    Sequences without any token are not counted: they are padding or were taken out. `max_response` is the response
    limit in tokens of the `constant` aggregation; by default the mask's own length R.
    """
    dtype = jnp.promote_types(jnp.float32, jnp.asarray(0.0).dtype)
    sequences = jnp.maximum(jnp.sum(jnp.any(mask, axis=-1)), 1).astype(dtype)
    return Denominators(
        tokens=jnp.maximum(jnp.sum(mask), 1).astype(dtype),
        sequences=sequences,
        constant=sequences * (mask.shape[-1] if max_response is None else max_response),
    )


def aggregate(
    values: Float[Array, "P G R"], mask: Bool[Array, "P G R"], how: str, whole: Denominators
) -> Float[Array, ""]:
    """This micro-batch's share of the batch's aggregate; `values` may hold anything outside `mask`.

    token_mean: sum / all tokens (DAPO). sequence_mean: sum of per-response means / responses (GRPO). constant: sum /
    (responses x response limit) (Dr. GRPO).
    """
    return AGGREGATIONS[how](jnp.where(mask, values, 0.0), mask, whole)


def policy_loss(
    logprobs: Float[Array, "P G R"],
    old_logprobs: Float[Array, "P G R"] | None,
    advantages: Float[Array, "P G"] | Float[Array, "P G R"],
    mask: Bool[Array, "P G R"],
    config: GrpoSection,
    *,
    denominators: Denominators,
    coefficients: Coefficients | None = None,
    reference_logprobs: Float[Array, "P G R"] | None = None,
    entropies: Float[Array, "P G R"] | None = None,
    behaviour_logprobs: Float[Array, "P G R"] | None = None,
    kl_weights: Float[Array, "P G"] | None = None,
    masked_image_logprobs: Float[Array, "P G R"] | None = None,
) -> tuple[Float[Array, ""], Metrics]:
    """Loss of a (micro-)batch and its metrics.

    `old_logprobs` None means the policy has not moved since sampling: the ratio is 1, with its gradient. `advantages`
    may differ per token. `denominators` are those of the whole batch of this optimiser step. `coefficients` are needed
    when one of them has a schedule. `kl_weights` weigh the KL of each response (`kl.kl_sample_weights`). Log-probs are
    natural logarithms of the sampled tokens; arrays may hold anything (-inf, NaN) outside `mask`: the gradient there is
    exactly 0. Raises ValueError, while tracing, when an array that the configuration needs is missing. Formulas and
    sources: docs/methods.md, "Objectives".
    """
    coefficients = coefficients if coefficients is not None else _unscheduled(config)
    _check_inputs(config, reference_logprobs, entropies, behaviour_logprobs, masked_image_logprobs)
    logprobs = jnp.where(mask, logprobs, 0.0)
    old = stop_gradient(logprobs if old_logprobs is None else jnp.where(mask, old_logprobs, 0.0))
    spread = advantages[..., None] if advantages.ndim == mask.ndim - 1 else advantages
    spread = stop_gradient(jnp.where(mask, spread, 0.0))

    terms = OBJECTIVES[config.objective](logprobs, logprobs - old, spread, mask, config)
    policy = terms.loss
    if config.importance.level != "none":
        assert behaviour_logprobs is not None
        policy = policy * importance_weights(old, behaviour_logprobs, mask, config.importance)
    loss = aggregate(policy, mask, config.aggregation, denominators)

    tokens = {
        "policy/clip_share": terms.below | terms.above,
        "policy/clip_share_low": terms.below,
        "policy/clip_share_high": terms.above,
        "policy/kl_old": kl_estimate(old, logprobs, mask, "k3") if old_logprobs is not None else jnp.zeros_like(old),
        "policy/ratio": terms.ratio,
    }
    maxima = {"policy/ratio_max": jnp.max(jnp.where(mask, terms.ratio, 0.0), initial=0.0)}
    if reference_logprobs is not None:
        reference = stop_gradient(reference_logprobs)
        tokens["policy/kl"] = kl_estimate(logprobs, reference, mask, "k3")
        if config.kl.in_loss:
            divergence = kl_estimate(logprobs, reference, mask, config.kl.estimator)
            if kl_weights is not None:
                divergence *= stop_gradient(kl_weights)[..., None]
            loss += coefficients.kl * aggregate(divergence, mask, config.aggregation, denominators)
    if entropies is not None:
        tokens["policy/entropy"] = entropies
        if config.entropy.used:
            loss -= coefficients.entropy * aggregate(entropies, mask, config.aggregation, denominators)
    if masked_image_logprobs is not None and config.perception.used:
        seen = masked_image_logprobs if config.perception.differentiate_masked else stop_gradient(masked_image_logprobs)
        seen = jnp.where(mask, seen, 0.0)
        gap = perception_gap(logprobs, seen)
        tokens["policy/perception_gap"] = gap
        perception = (
            -coefficients.perception * gap
            - coefficients.perception_share * config.perception.entropy_coefficient * logprobs
            - coefficients.perception_share * config.perception.masked_entropy_coefficient * seen
        )
        loss += aggregate(perception, mask, config.aggregation, denominators)
    if behaviour_logprobs is not None:
        difference = mismatch(old, behaviour_logprobs, mask)
        tokens["policy/mismatch"] = difference
        maxima["policy/mismatch_max"] = jnp.max(difference, initial=0.0)
    return loss, _token_metrics(tokens, maxima, mask)


@flax.struct.dataclass
class _Terms:
    loss: Array
    ratio: Array
    below: Array
    above: Array


def _ppo_terms(log_ratio: Array, advantages: Array, mask: Array, config: GrpoSection) -> _Terms:
    assert config.clip_low is not None
    assert config.clip_high is not None
    ratio = jnp.exp(limited(log_ratio))
    low, high = 1.0 - config.clip_low, 1.0 + config.clip_high
    loss = jnp.maximum(-advantages * ratio, -advantages * jnp.clip(ratio, low, high))
    above = (advantages > 0) & (ratio > high)
    if config.dual_clip is not None:
        capped = jnp.minimum(loss, -advantages * config.dual_clip)
        loss = jnp.where(advantages < 0, capped, loss)
        above |= (advantages < 0) & (ratio > config.dual_clip)
    below = (advantages < 0) & (ratio < low)
    return _Terms(loss, ratio, below & mask, above & mask)


def _ppo_clip(logprobs, log_ratio, advantages, mask, config):
    return _ppo_terms(log_ratio, advantages, mask, config)


def _sequence_mean(values: Array, mask: Array) -> Array:
    total = jnp.sum(jnp.where(mask, values, 0.0), axis=-1, keepdims=True)
    return jnp.broadcast_to(total / jnp.maximum(jnp.sum(mask, axis=-1, keepdims=True), 1), values.shape)


def _gspo(logprobs, log_ratio, advantages, mask, config):
    return _ppo_terms(_sequence_mean(log_ratio, mask), advantages, mask, config)


def _gspo_token(logprobs, log_ratio, advantages, mask, config):
    # The value is the sequence's ratio, the gradient is the token's own.
    sequence = stop_gradient(_sequence_mean(log_ratio, mask))
    return _ppo_terms(sequence + logprobs - stop_gradient(logprobs), advantages, mask, config)


def _cispo(logprobs, log_ratio, advantages, mask, config):
    ratio = jnp.exp(limited(log_ratio))
    low, high = 1.0 - config.clip_low, 1.0 + config.clip_high
    loss = -advantages * logprobs * stop_gradient(jnp.clip(ratio, low, high))
    return _Terms(loss, ratio, (ratio < low) & mask, (ratio > high) & mask)


def _sapo(logprobs, log_ratio, advantages, mask, config):
    ratio = jnp.exp(limited(log_ratio))
    tau = jnp.where(advantages > 0, config.tau_positive, config.tau_negative)
    loss = -advantages * (4.0 / tau) * jax.nn.sigmoid(tau * (ratio - 1.0))
    nothing = jnp.zeros_like(mask)
    return _Terms(loss, ratio, nothing, nothing)


def _unscheduled(config: GrpoSection) -> Coefficients:
    parts = {"kl": config.kl, "entropy": config.entropy, "perception": config.perception}
    moving = [name for name, part in parts.items() if part.schedule != "constant"]
    if moving:
        raise ValueError(
            f"grpo.{moving[0]}.schedule moves with the step: pass `coefficients` of the step to policy_loss"
        )
    return Coefficients(**{name: jnp.asarray(part.coefficient) for name, part in parts.items()})


def _check_inputs(config, reference, entropies, behaviour, masked_image):
    needs = {
        "reference_logprobs": (config.kl.in_loss, reference, "kl.coefficient"),
        "entropies": (config.entropy.used, entropies, "entropy.coefficient"),
        "behaviour_logprobs": (config.importance.level != "none", behaviour, "importance.level"),
        "masked_image_logprobs": (config.perception.used, masked_image, "perception.coefficient"),
    }
    for name, (needed, given, key) in needs.items():
        if needed and given is None:
            raise ValueError(f"grpo.{key} is set, but policy_loss was not given `{name}`")


def _token_metrics(tokens: dict[str, Array], maxima: dict[str, Array], mask: Array) -> Metrics:
    count = jnp.sum(mask).astype(jnp.float32)
    sums = {name: jnp.sum(jnp.where(mask, value, 0)).astype(jnp.float32) for name, value in tokens.items()}
    return stop_gradient(Metrics(sums=sums, counts=dict.fromkeys(sums, count), maxima=maxima))


AGGREGATIONS: dict[str, Callable[[Array, Array, Denominators], Array]] = {
    "token_mean": lambda values, mask, whole: jnp.sum(values) / whole.tokens,
    "sequence_mean": lambda values, mask, whole: (
        jnp.sum(jnp.sum(values, axis=-1) / jnp.maximum(jnp.sum(mask, axis=-1), 1)) / whole.sequences
    ),
    "constant": lambda values, mask, whole: jnp.sum(values) / whole.constant,
}

OBJECTIVES: dict[str, Callable[..., _Terms]] = {
    "ppo_clip": _ppo_clip,
    "gspo": _gspo,
    "gspo_token": _gspo_token,
    "cispo": _cispo,
    "sapo": _sapo,
}

__all__ = [
    "AGGREGATIONS",
    "OBJECTIVES",
    "Denominators",
    "aggregate",
    "denominators",
    "policy_loss",
    "training_mask",
]
