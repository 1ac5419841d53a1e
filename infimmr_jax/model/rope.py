"""Rotary embeddings in float32: multimodal (decoder) and two-dimensional (vision tower)."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from infimmr_jax.model.config import TextConfig, VisionConfig
from infimmr_jax.model.rope_scaling import scaled_frequencies

# Leading axes broadcast against those of what is rotated.
Rope = tuple[Float[Array, "... D"], Float[Array, "... D"]]


def decoder_rope(positions: Int[Array, "*lead 3"], config: TextConfig) -> Rope:
    """Give cosines and sines of multimodal RoPE for positions (time, height, width), scaled as `rope_scaling` says.

    Each frequency belongs to one of the three axes, in runs of `mrope_section` (Qwen2-VL, arXiv 2409.12191, 2.1).
    Angles stay float32: in bfloat16 they are wrong by up to 0.4 in the cosine at a few hundred positions.
    """
    half = config.head_dim // 2
    frequency = 1.0 / config.rope_theta ** (np.arange(half, dtype=np.float32) * 2 / config.head_dim)
    frequency, factor = frequency.astype(np.float32), 1.0
    if config.rope_scaling is not None:
        frequency, factor = scaled_frequencies(frequency, config.rope_scaling, config.head_dim, config.rope_theta)
    axis = np.repeat(np.arange(3), config.mrope_section)
    angles = positions.astype(jnp.float32)[..., axis] * frequency
    angles = jnp.concatenate([angles, angles], axis=-1)
    if factor == 1.0:
        return jnp.cos(angles), jnp.sin(angles)
    return jnp.cos(angles) * factor, jnp.sin(angles) * factor


def vision_rope(positions: Int[Array, "*lead 2"], config: VisionConfig) -> Rope:
    """Give cosines and sines of 2-D RoPE for patch positions (row, column); half of the frequencies for each."""
    quarter = config.head_dim // 4
    frequency = 1.0 / config.rope_theta ** (np.arange(quarter, dtype=np.float32) * 2 / (config.head_dim // 2))
    axis = np.repeat(np.arange(2), quarter)
    angles = positions.astype(jnp.float32)[..., axis] * np.tile(frequency, 2).astype(np.float32)
    angles = jnp.concatenate([angles, angles], axis=-1)
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: Float[Array, "*lead H D"], rope: Rope) -> Float[Array, "*lead H D"]:
    """Rotate every head of `x` by the angles of its position, in float32, and cast back."""
    cos, sin = (part[..., None, :] for part in rope)
    wide = x.astype(jnp.float32)
    first, second = jnp.split(wide, 2, axis=-1)
    turned = jnp.concatenate([-second, first], axis=-1)
    return (wide * cos + turned * sin).astype(x.dtype)
