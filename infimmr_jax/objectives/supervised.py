"""The supervised step: mean negative log-probability of what demonstrations teach."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Bool, Float, Int32

from infimmr_jax.config import TrainableSection
from infimmr_jax.model.family import Model
from infimmr_jax.model.logprobs import token_logprobs
from infimmr_jax.model.trunk import Params
from infimmr_jax.objectives.packed import packed_loss
from infimmr_jax.objectives.train_state import TrainState, apply_gradient
from infimmr_jax.objectives.trainable import EVERYTHING, frozen_stopped, learning_factors
from infimmr_jax.preprocess.batching import Numbers, PromptBatch
from infimmr_jax.preprocess.packing import PackedBatch


@struct.dataclass
class SftBatch:
    """Prompts with one demonstrated response each; `mask` is True on its tokens and end token."""

    prompts: PromptBatch
    responses: Int32[Numbers, "P 1 R"]
    mask: Bool[Numbers, "P 1 R"]


def sft_step(
    state: TrainState,
    batch: SftBatch | PackedBatch,
    allowed: Bool[Array, "V"],
    learning_rate: Float[Array, ""],
    model: Model,
    optimizer: optax.GradientTransformation,
    chunk: int,
    trainable: TrainableSection = EVERYTHING,
) -> tuple[TrainState, dict[str, Array]]:
    """One step on the mean negative log-probability of the response tokens, for what `trainable` lets move."""
    factors = learning_factors(state.params, trainable)

    def loss_of(params: Params) -> Array:
        params = frozen_stopped(params, factors)
        if isinstance(batch, PackedBatch):
            return packed_loss(params, batch, allowed, model, chunk)
        hidden = model.branch(params, model.trunk(params, batch.prompts), batch.responses)
        log_probs, _ = token_logprobs(hidden, model.head_kernel(params), batch.responses, allowed, 1.0, chunk)
        return -jnp.sum(jnp.where(batch.mask, log_probs, 0.0)) / jnp.sum(batch.mask)

    loss, gradient = jax.value_and_grad(loss_of)(state.params)
    state, metrics = apply_gradient(state, gradient, optimizer, learning_rate, factors, loss)
    return state, {"loss": loss, **metrics}
