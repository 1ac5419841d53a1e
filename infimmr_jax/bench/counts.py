"""What the arithmetic needs: floating-point operations and bytes of each part, counted from shapes.

A multiplication and an addition are two operations. Causal attention counts the visible half, recomputation counts
nothing: shares of a ceiling are then shares of useful work (the convention of PaLM, arXiv 2204.02311, appendix B).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from infimmr_jax.bench.work import Size
from infimmr_jax.model.config import ModelConfig


def layer_weights(config: ModelConfig) -> int:
    """Matrix entries of all decoder layers that a token is multiplied with."""
    text = config.text
    heads, keys = text.num_heads * text.head_dim, text.num_kv_heads * text.head_dim
    return text.num_layers * text.hidden_size * (2 * heads + 2 * keys + 3 * text.intermediate_size)


def head_weights(config: ModelConfig) -> int:
    """Matrix entries of the head."""
    return config.text.hidden_size * config.text.vocab_size


def attention_flops(config: ModelConfig, pairs: float) -> float:
    """Scores and mixing of `pairs` visible (query, key) pairs in all layers."""
    return 4.0 * config.text.num_layers * config.text.num_heads * config.text.head_dim * pairs


def vision_weights(config: ModelConfig) -> tuple[int, int]:
    """Matrix entries of the tower, and of the merger, which takes several patches at a time."""
    vision = config.vision
    E, F, merged = vision.hidden_size, vision.intermediate_size, vision.hidden_size * vision.merge_unit
    tower = vision.depth * (4 * E * E + 3 * E * F) + E * vision.patch_dim
    return tower, merged * (merged + vision.out_hidden_size)


def vision_flops(config: ModelConfig, patches: int, windows: int) -> float:
    """One image of `patches` patches in `windows` windows through the tower and the merger."""
    vision = config.vision
    tower, merger = vision_weights(config)
    full = len(vision.fullatt_block_indexes)
    pairs = full * patches**2 + (vision.depth - full) * windows * vision.window_patches**2
    return 2.0 * patches * (tower + merger / vision.merge_unit) + 4.0 * vision.hidden_size * pairs


def prefill_flops(config: ModelConfig, size: Size, patches: int, windows: int) -> float:
    """Vision and prompt once per prompt; no logits are needed, and of the last layer only keys and values."""
    text, S = config.text, size.prompt_tokens - 1
    before_last = (text.num_layers - 1) / text.num_layers
    keys_and_values = 2 * text.hidden_size * text.num_kv_heads * text.head_dim
    dense = 2.0 * (layer_weights(config) * before_last + keys_and_values) * S
    prompt = dense + attention_flops(config, S * (S + 1) / 2) * before_last
    return size.prompts * (prompt + (vision_flops(config, patches, windows) if patches else 0.0))


def token_flops(config: ModelConfig, tokens: float) -> float:
    """The matrix products of `tokens` tokens of responses forward, with their logits and without attention."""
    return 2.0 * (layer_weights(config) + head_weights(config)) * tokens


def branch_flops(config: ModelConfig, size: Size, lengths: Int[np.ndarray, "P G"]) -> float:
    """Responses of these lengths forward, with their logits: one token at a time or whole makes no difference."""
    S, R = size.prompt_tokens - 1, lengths.astype(np.float64)
    return token_flops(config, R.sum()) + attention_flops(config, (R * S + R * (R + 1) / 2).sum())


def update_flops(config: ModelConfig, size: Size, lengths: Int[np.ndarray, "P G"], patches: int, windows: int) -> float:
    """Forward and backward (twice the forward) of trunks and branches."""
    return 3.0 * (prefill_flops(config, size, patches, windows) + branch_flops(config, size, lengths))


def prefill_bytes(config: ModelConfig, size: Size, width: int) -> float:
    """Bytes of the matrices that a prefill reads once, whatever the number of prompts, of numbers of `width` bytes."""
    return width * (layer_weights(config) + (sum(vision_weights(config)) if size.image_size else 0.0))


def decode_bytes(config: ModelConfig, size: Size, lengths: Int[np.ndarray, "P G"], width: int) -> float:
    """Bytes that decoding responses of these lengths must read, of numbers of `width` bytes.

    All matrices once a token, the trunk of each prompt until the last of its branches ends, each branch's own past.
    """
    text, S, R = config.text, size.prompt_tokens - 1, lengths.astype(np.float64)
    slot = 2 * text.num_layers * text.num_kv_heads * text.head_dim
    cache = slot * (S * R.max(axis=1).sum() + (R * (R + 1) / 2).sum())
    return width * (R.max() * (layer_weights(config) + head_weights(config)) + cache)
