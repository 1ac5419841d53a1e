"""What the arithmetic needs: floating-point operations and bytes of each part, counted from shapes.

A multiplication and an addition are two operations. Causal attention counts the visible half, recomputation counts
nothing: shares of a ceiling are then shares of useful work (the convention of PaLM, arXiv 2204.02311, appendix B).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from infimmr_jax.bench.work import Size
from infimmr_jax.model.config import ModelConfig
from infimmr_jax.model.costs import (
    attention_flops,
    cache_numbers,
    head_weights,
    layer_weights,
    vision_attention_flops,
    vision_layer_weights,
)


def decoder_weights(config: ModelConfig) -> int:
    """Count the matrix entries of all decoder layers that a token is multiplied with."""
    return config.text.num_layers * layer_weights(config)


def vision_weights(config: ModelConfig) -> tuple[int, int]:
    """Count the matrix entries of the tower, and of the merger, which takes several patches at a time."""
    vision = config.vision
    merged = vision.hidden_size * vision.merge_unit
    tower = vision.depth * vision_layer_weights(config) + vision.hidden_size * vision.patch_dim
    return tower, merged * (merged + vision.out_hidden_size)


def vision_flops(config: ModelConfig, patches: int, windows: int) -> float:
    """Count one image of `patches` patches in `windows` windows through the tower and the merger."""
    vision = config.vision
    tower, merger = vision_weights(config)
    attention = vision_attention_flops(config, patches**2, windows * vision.window_patches**2)
    return 2.0 * patches * (tower + merger / vision.merge_unit) + attention


def prefill_flops(config: ModelConfig, size: Size, patches: int, windows: int) -> float:
    """Count vision and prompt once per prompt; no logits are needed, and of the last layer only keys and values."""
    text, S = config.text, size.prompt_tokens - 1
    before_last = (text.num_layers - 1) / text.num_layers
    keys_and_values = 2 * text.hidden_size * text.num_kv_heads * text.head_dim
    dense = 2.0 * (decoder_weights(config) * before_last + keys_and_values) * S
    prompt = dense + attention_flops(config, S * (S + 1) / 2) * before_last
    return size.prompts * (prompt + (vision_flops(config, patches, windows) if patches else 0.0))


def token_flops(config: ModelConfig, tokens: float) -> float:
    """Count the matrix products of `tokens` tokens of responses forward, with their logits and without attention."""
    return 2.0 * (decoder_weights(config) + head_weights(config)) * tokens


def branch_flops(config: ModelConfig, size: Size, lengths: Int[np.ndarray, "P G"]) -> float:
    """Count responses of these lengths forward, with their logits: one token at a time or whole makes no difference."""
    S, R = size.prompt_tokens - 1, lengths.astype(np.float64)
    return token_flops(config, R.sum()) + attention_flops(config, (R * S + R * (R + 1) / 2).sum())


def update_flops(config: ModelConfig, size: Size, lengths: Int[np.ndarray, "P G"], patches: int, windows: int) -> float:
    """Count forward and backward (twice the forward) of trunks and branches."""
    return 3.0 * (prefill_flops(config, size, patches, windows) + branch_flops(config, size, lengths))


def prefill_bytes(config: ModelConfig, size: Size, width: int) -> float:
    """Count the bytes of the matrices that a prefill of any number of prompts reads, of numbers of `width` bytes."""
    return width * (decoder_weights(config) + (sum(vision_weights(config)) if size.image_size else 0.0))


def decode_bytes(config: ModelConfig, size: Size, lengths: Int[np.ndarray, "P G"], width: int) -> float:
    """Count the bytes that decoding responses of these lengths must read, of numbers of `width` bytes.

    All matrices once a token, the trunk of each prompt until the last of its branches ends, each branch's own past.
    """
    S, R = size.prompt_tokens - 1, lengths.astype(np.float64)
    cache = cache_numbers(config) * (S * R.max(axis=1).sum() + (R * (R + 1) / 2).sum())
    return width * (R.max() * (decoder_weights(config) + head_weights(config)) + cache)
