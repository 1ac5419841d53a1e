"""The supervised loss of packed rows: block-diagonal attention, logits at the taught tokens alone."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from infimmr_jax.model.family import Model
from infimmr_jax.model.logprobs import token_logprobs
from infimmr_jax.model.trunk import Params
from infimmr_jax.preprocess.packing import PackedBatch


def packed_logprobs(
    params: Params, batch: PackedBatch, allowed: Bool[Array, "V"], model: Model, chunk: int
) -> Float[Array, "B M"]:
    """Log-probability of every taught token; each demonstration is computed as if it were alone in its row."""
    hidden = model.packed(params, batch)
    taught = jnp.take_along_axis(hidden, batch.places[..., None], axis=1)
    targets = batch.targets[:, None]
    log_probs, _ = token_logprobs(taught[:, None], model.head_kernel(params), targets, allowed, 1.0, chunk)
    return log_probs[:, 0]


def packed_loss(
    params: Params, batch: PackedBatch, allowed: Bool[Array, "V"], model: Model, chunk: int
) -> Float[Array, ""]:
    """Mean negative log-probability of the taught tokens of the batch."""
    log_probs = packed_logprobs(params, batch, allowed, model, chunk)
    return -jnp.sum(jnp.where(batch.mask, log_probs, 0.0)) / jnp.sum(batch.mask)
