"""The supervised step: mean negative log-probability of what demonstrations teach."""

from __future__ import annotations

from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from infimmr_jax.config import TrainableSection
from infimmr_jax.model.config import ModelConfig
from infimmr_jax.model.decoder import head_kernel
from infimmr_jax.model.logprobs import token_logprobs
from infimmr_jax.model.options import ModelOptions
from infimmr_jax.model.qwen2_5_vl import branch_forward, trunk_forward
from infimmr_jax.objectives.packed import packed_loss
from infimmr_jax.objectives.train_state import TrainState, apply_gradient
from infimmr_jax.objectives.trainable import EVERYTHING, frozen_stopped, learning_factors
from infimmr_jax.preprocess.batching import PromptBatch
from infimmr_jax.preprocess.packing import PackedBatch


@struct.dataclass
class SftBatch:
    """Prompts with one demonstrated response each, int32 [P, 1, R]; `mask` is True on its tokens and end token."""

    prompts: PromptBatch
    responses: Int[Array | np.ndarray, "P 1 R"]
    mask: Bool[Array | np.ndarray, "P 1 R"]


def sft_step(
    state: TrainState,
    batch: SftBatch | PackedBatch,
    allowed: Bool[Array, "V"],
    learning_rate: Float[Array, ""],
    config: ModelConfig,
    options: ModelOptions,
    optimizer: optax.GradientTransformation,
    chunk: int,
    trainable: TrainableSection = EVERYTHING,
) -> tuple[TrainState, dict[str, Array]]:
    """One step on the mean negative log-probability of the response tokens, for what `trainable` lets move."""
    factors = learning_factors(state.params, trainable)

    def loss_of(params: dict) -> Array:
        params = frozen_stopped(params, factors)
        if isinstance(batch, PackedBatch):
            return packed_loss(params, batch, allowed, config, options, chunk)
        trunk = trunk_forward(params, config, options, batch.prompts)
        responses = cast(Array, batch.responses)
        hidden = branch_forward(params, config, options, trunk, responses)
        kernel = head_kernel(params["decoder"], config.text)
        log_probs, _ = token_logprobs(hidden, kernel, responses, allowed, 1.0, chunk)
        return -jnp.sum(jnp.where(batch.mask, log_probs, 0.0)) / jnp.sum(batch.mask)

    loss, gradient = jax.value_and_grad(loss_of)(state.params)
    state, metrics = apply_gradient(state, gradient, optimizer, learning_rate, factors, loss)
    return state, {"loss": loss, **metrics}
