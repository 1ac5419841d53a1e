"""The supervised loss of packed rows: block-diagonal attention, logits at the taught tokens alone."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from infimmr_jax.model.config import ModelConfig
from infimmr_jax.model.decoder import embed_tokens, head_kernel, packed_layers
from infimmr_jax.model.logprobs import token_logprobs
from infimmr_jax.model.options import ModelOptions
from infimmr_jax.model.vision import vision_forward
from infimmr_jax.preprocess.packing import PackedBatch


def packed_logprobs(
    params: dict,
    batch: PackedBatch,
    allowed: Bool[Array, "V"],
    config: ModelConfig,
    options: ModelOptions,
    chunk: int,
) -> Float[Array, "B M"]:
    """Log-probability of every taught token; each demonstration is computed as if it were alone in its row."""
    x = embed_tokens(params["decoder"], batch.tokens, options)
    if batch.patches.size:
        slots = batch.patches, batch.patch_positions, batch.patch_mask
        visual = vision_forward(params["visual"], config.vision, options, *slots)
        placed = visual.reshape(-1, visual.shape[-1])[jnp.maximum(batch.image_index, 0)]
        x = jnp.where((batch.image_index >= 0)[..., None], placed.astype(x.dtype), x)
    positions = jnp.moveaxis(batch.positions, 1, -1)
    hidden = packed_layers(params["decoder"], config.text, options, x, positions, batch.segments)
    wanted = jnp.take_along_axis(hidden, batch.places[..., None], axis=1)
    kernel = head_kernel(params["decoder"], config.text)
    targets: Any = batch.targets[:, None]
    log_probs, _ = token_logprobs(wanted[:, None], kernel, targets, allowed, 1.0, chunk)
    return log_probs[:, 0]


def packed_loss(params: dict, batch: PackedBatch, *settings: Any) -> Float[Array, ""]:
    """Mean negative log-probability of the taught tokens of the batch; `settings` as in `packed_logprobs`."""
    log_probs = packed_logprobs(params, batch, *settings)
    return -jnp.sum(jnp.where(batch.mask, log_probs, 0.0)) / jnp.sum(batch.mask)
