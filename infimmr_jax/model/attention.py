"""The one door to attention: bidirectional (vision), trunk, branch and decode forms, softmax in float32.

Letters: P prompts, G group, S trunk length, R response length, H query heads, K key/value heads, Q = H / K, D head
size, B any batch, T any length. Trunk and cache arrays are [.., K, slots, D]: a decode step reads that layout fastest.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

# A finite bias: a row without any visible key gives a mean instead of NaN, and its gradient stays finite.
MASKED = -1e30


def vision_attention(
    q: Float[Array, "B T H D"], k: Float[Array, "B T H D"], v: Float[Array, "B T H D"], mask: Bool[Array, "B T"]
) -> Float[Array, "B T H D"]:
    """Bidirectional attention in which every query sees the keys where `mask` is True."""
    scores = jnp.einsum("bthd,bshd->bhts", q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
    weights = jax.nn.softmax(jnp.where(mask[:, None, None, :], scores, MASKED), axis=-1)
    return jnp.einsum("bhts,bshd->bthd", weights.astype(v.dtype), v)


def trunk_attention(
    q: Float[Array, "P S H D"], k: Float[Array, "P K S D"], v: Float[Array, "P K S D"], mask: Bool[Array, "P S"]
) -> Float[Array, "P S H D"]:
    """Causal attention of the prompt over itself; `mask` is True on real tokens (padding is on the right)."""
    P, S, H, D = q.shape
    q = q.reshape(P, S, k.shape[1], -1, D)
    scores = jnp.einsum("pskqd,pktd->pkqst", q, k, preferred_element_type=jnp.float32) * D**-0.5
    visible = jnp.tril(jnp.ones((S, S), bool)) & mask[:, None, :]
    weights = jax.nn.softmax(jnp.where(visible[:, None, None], scores, MASKED), axis=-1)
    return jnp.einsum("pkqst,pktd->pskqd", weights.astype(v.dtype), v).reshape(P, S, H, D)


def branch_attention(
    q: Float[Array, "P G R H D"],
    k: Float[Array, "P G K R D"],
    v: Float[Array, "P G K R D"],
    trunk_k: Float[Array, "P K S D"],
    trunk_v: Float[Array, "P K S D"],
    trunk_mask: Bool[Array, "P S"],
) -> Float[Array, "P G R H D"]:
    """Attention of G branches over the trunk they share and, causally, over themselves: one softmax over both parts."""
    P, G, R, H, D = q.shape
    S = trunk_k.shape[2]
    q = q.reshape(P, G, R, trunk_k.shape[1], -1, D)
    above = jnp.einsum("pgrkqd,pksd->pgkqrs", q, trunk_k, preferred_element_type=jnp.float32) * D**-0.5
    own = jnp.einsum("pgrkqd,pgktd->pgkqrt", q, k, preferred_element_type=jnp.float32) * D**-0.5
    above = jnp.where(trunk_mask[:, None, None, None, None, :], above, MASKED)
    own = jnp.where(jnp.tril(jnp.ones((R, R), bool)), own, MASKED)
    weights = jax.nn.softmax(jnp.concatenate([above, own], axis=-1), axis=-1).astype(v.dtype)
    out = jnp.einsum("pgkqrs,pksd->pgrkqd", weights[..., :S], trunk_v)
    out += jnp.einsum("pgkqrt,pgktd->pgrkqd", weights[..., S:], v)
    return out.reshape(P, G, R, H, D)


def decode_attention(
    q: Float[Array, "P G H D"],
    k: Float[Array, "P G K R D"],
    v: Float[Array, "P G K R D"],
    trunk_k: Float[Array, "P K S D"],
    trunk_v: Float[Array, "P K S D"],
    trunk_mask: Bool[Array, "P S"],
    last: Int[Array, ""],
) -> Float[Array, "P G H D"]:
    """One token of every branch over the shared trunk and its own cache up to and including slot `last`."""
    P, G, H, D = q.shape
    S, R = trunk_k.shape[2], k.shape[3]
    q = q.reshape(P, G, trunk_k.shape[1], -1, D)
    above = jnp.einsum("pgkqd,pksd->pgkqs", q, trunk_k, preferred_element_type=jnp.float32) * D**-0.5
    own = jnp.einsum("pgkqd,pgktd->pgkqt", q, k, preferred_element_type=jnp.float32) * D**-0.5
    above = jnp.where(trunk_mask[:, None, None, None, :], above, MASKED)
    own = jnp.where(jnp.arange(R) <= last, own, MASKED)
    weights = jax.nn.softmax(jnp.concatenate([above, own], axis=-1), axis=-1).astype(v.dtype)
    out = jnp.einsum("pgkqs,pksd->pgkqd", weights[..., :S], trunk_v)
    out += jnp.einsum("pgkqt,pgktd->pgkqd", weights[..., S:], v)
    return out.reshape(P, G, H, D)
