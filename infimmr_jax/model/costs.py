"""Count what an architecture costs: matrix entries, operations and cache numbers, for `plan` and `bench`.

A multiplication and an addition are two operations. `plan` counts what a step executes on one chip, recomputation and
padding included; `bench` counts what a step needs, so that shares of a ceiling are shares of useful work.
"""

from __future__ import annotations

from infimmr_jax.model.config import ModelConfig


def layer_weights(config: ModelConfig) -> int:
    """Count the matrix entries of one decoder layer that a token is multiplied with."""
    text = config.text
    heads, keys = text.num_heads * text.head_dim, text.num_kv_heads * text.head_dim
    return text.hidden_size * (2 * heads + 2 * keys + 3 * text.intermediate_size)


def head_weights(config: ModelConfig) -> int:
    """Count the matrix entries of the head."""
    return config.text.hidden_size * config.text.vocab_size


def attention_flops(config: ModelConfig, pairs: float) -> float:
    """Count scores and mixing of `pairs` visible (query, key) pairs in all decoder layers."""
    text = config.text
    return 4.0 * text.num_layers * text.num_heads * text.head_dim * pairs


def vision_layer_weights(config: ModelConfig) -> int:
    """Count the matrix entries of one layer of the tower that a patch is multiplied with."""
    vision = config.vision
    return 4 * vision.hidden_size**2 + 3 * vision.hidden_size * vision.intermediate_size


def vision_attention_flops(config: ModelConfig, full_pairs: float, window_pairs: float) -> float:
    """Count scores and mixing in the tower: pairs in a layer that attends to all patches, and in one of windows."""
    vision = config.vision
    full = len(vision.fullatt_block_indexes)
    return 4.0 * vision.hidden_size * (full * full_pairs + (vision.depth - full) * window_pairs)


def cache_numbers(config: ModelConfig) -> int:
    """Count the keys and values of one token in all layers."""
    text = config.text
    return 2 * text.num_layers * text.num_kv_heads * text.head_dim
