"""Qwen2.5-VL as pure functions over a parameter tree: trunk (prompt and images) and branches (responses)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from infimmr_jax.model import decoder, vision
from infimmr_jax.model.config import ModelConfig
from infimmr_jax.model.decoder import Trunk
from infimmr_jax.model.options import ModelOptions
from infimmr_jax.parallel.sequence import lay
from infimmr_jax.preprocess.batching import PromptBatch

Params = dict


def init_params(key: Array, config: ModelConfig, options: ModelOptions) -> Params:
    """Random parameters: {"visual": .., "decoder": ..}; layers are stacked on axis 0."""
    visual, text = jax.random.split(key)
    return {
        "visual": vision.init_vision(visual, config.vision, options),
        "decoder": decoder.init_decoder(text, config.text, options),
    }


def abstract_params(config: ModelConfig, options: ModelOptions) -> Params:
    """Shapes and dtypes of the parameters, without making them."""
    return jax.eval_shape(lambda: init_params(jax.random.key(0), config, options))


def embed_prompt(
    params: Params, config: ModelConfig, options: ModelOptions, batch: PromptBatch
) -> Float[Array, "P S E"]:
    """Token embeddings of the prompts with the visual tokens of their images put in place."""
    x = decoder.embed_tokens(params["decoder"], batch.tokens, options)
    if batch.patches.size == 0:
        return x
    P = batch.patches.shape[0]
    slots = [part.reshape(-1, *part.shape[2:]) for part in (batch.patches, batch.patch_positions, batch.patch_mask)]
    slots = [lay(part, "branches") for part in slots]
    visual = vision.vision_forward(params["visual"], config.vision, options, *slots)
    visual = visual.reshape(P, -1, visual.shape[-1])
    placed = jnp.take_along_axis(visual, jnp.maximum(batch.image_index, 0)[..., None], axis=1)
    return jnp.where((batch.image_index >= 0)[..., None], placed.astype(x.dtype), x)


def prompt_hidden(
    params: Params, config: ModelConfig, options: ModelOptions, batch: PromptBatch
) -> tuple[Float[Array, "P S E"], Trunk]:
    """Final hidden states (after the norm) of the prompts, and their trunk."""
    x = embed_prompt(params, config, options, batch)
    mask = jnp.arange(batch.tokens.shape[1]) < batch.lengths[:, None]
    positions = jnp.moveaxis(batch.positions, 1, -1)
    x, k, v = decoder.trunk_layers(params["decoder"], config.text, options, x, positions, mask)
    trunk = Trunk(k=k, v=v, mask=mask, bridge=batch.bridge, next_position=batch.next_position)
    return decoder.final_norm(params["decoder"], x, config.text), trunk


def trunk_forward(params: Params, config: ModelConfig, options: ModelOptions, batch: PromptBatch) -> Trunk:
    """Vision once and prompt once: everything the G branches of each prompt share."""
    return prompt_hidden(params, config, options, batch)[1]


def branch_inputs(trunk: Trunk, responses: Int[Array, "P G R"]) -> Int[Array, "P G R"]:
    """The tokens that predict `responses`: the bridge (last prompt token), then the responses shifted by one."""
    bridge = jnp.broadcast_to(trunk.bridge[:, None, None], (*responses.shape[:2], 1))
    return jnp.concatenate([bridge.astype(responses.dtype), responses[..., :-1]], axis=-1)


def branch_forward(
    params: Params, config: ModelConfig, options: ModelOptions, trunk: Trunk, responses: Int[Array, "P G R"]
) -> Float[Array, "P G R E"]:
    """Hidden states that predict every response token, teacher forced, for all G responses of every prompt."""
    return decoder.branch_layers(params["decoder"], config.text, options, trunk, branch_inputs(trunk, responses))


def logits(params: Params, config: ModelConfig, hidden: Float[Array, "*lead E"]) -> Float[Array, "*lead V"]:
    """Float32 logits of hidden states: for a few rows; long sequences go through `token_logprobs`."""
    kernel = decoder.head_kernel(params["decoder"], config.text)
    return jnp.einsum("...e,ev->...v", hidden, kernel.astype(hidden.dtype), preferred_element_type=jnp.float32)
