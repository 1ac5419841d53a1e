"""What the arithmetic needs: floating-point operations and bytes of each part, counted from shapes.

A multiplication and an addition are two operations. Causal attention counts the visible half, recomputation counts
nothing: shares of a ceiling are then shares of useful work (the convention of PaLM, arXiv 2204.02311, appendix B).
"""

from __future__ import annotations

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


def vision_flops(config: ModelConfig, patches: int, windows: int) -> float:
    """One image of `patches` patches in `windows` windows through the tower and the merger."""
    vision = config.vision
    E, F, unit = vision.hidden_size, vision.intermediate_size, vision.merge_unit
    blocks = vision.depth * (4 * E * E + 3 * E * F) + E * vision.patch_dim
    merger = E * unit * (E * unit + vision.out_hidden_size) / unit
    full = len(vision.fullatt_block_indexes)
    pairs = full * patches**2 + (vision.depth - full) * windows * vision.window_patches**2
    return 2.0 * patches * (blocks + merger) + 4.0 * E * pairs


def prefill_flops(config: ModelConfig, size: Size, patches: int, windows: int) -> float:
    """Vision and prompt once per prompt; no logits are needed, and of the last layer only keys and values."""
    text, S = config.text, size.prompt_tokens - 1
    before_last = (text.num_layers - 1) / text.num_layers
    keys_and_values = 2 * text.hidden_size * text.num_kv_heads * text.head_dim
    dense = 2.0 * (layer_weights(config) * before_last + keys_and_values) * S
    prompt = dense + attention_flops(config, S * (S + 1) / 2) * before_last
    return size.prompts * (prompt + (vision_flops(config, patches, windows) if patches else 0.0))


def branch_flops(config: ModelConfig, size: Size) -> float:
    """All branches forward, with their logits: one token at a time or whole makes no difference."""
    S, R = size.prompt_tokens - 1, size.new_tokens
    dense = 2.0 * (layer_weights(config) + head_weights(config)) * R
    return size.rows * (dense + attention_flops(config, R * S + R * (R + 1) / 2))


def update_flops(config: ModelConfig, size: Size, patches: int, windows: int) -> float:
    """Forward and backward (twice the forward) of trunks and branches."""
    return 3.0 * (prefill_flops(config, size, patches, windows) + branch_flops(config, size))


def decode_bytes(config: ModelConfig, size: Size, width: int) -> float:
    """Bytes that decoding must read: all matrices once a token, the trunk once a prompt, each branch's own past.

    `width` is the size of a number in bytes.
    """
    text, S, R = config.text, size.prompt_tokens - 1, size.new_tokens
    slot = 2 * text.num_layers * text.num_kv_heads * text.head_dim
    cache = slot * (size.prompts * S * R + size.rows * R * (R + 1) / 2)
    return width * (R * (layer_weights(config) + head_weights(config)) + cache)
