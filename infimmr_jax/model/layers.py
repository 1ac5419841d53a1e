"""Linen layers shared by the vision tower and the decoder."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class RMSNorm(nn.Module):
    """Root-mean-square normalisation with a learned scale, in float32 (arXiv 1910.07467)."""

    eps: float
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*lead E"]) -> Float[Array, "*lead E"]:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), self.param_dtype)
        wide = x.astype(jnp.float32)
        wide = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + self.eps)
        return (wide.astype(x.dtype) * scale.astype(x.dtype)).astype(x.dtype)


class SwiGLU(nn.Module):
    """Gated feed-forward layer: down(silu(gate(x)) * up(x)) (arXiv 2002.05202)."""

    features: int
    hidden: int
    use_bias: bool
    dtype: jnp.dtype
    param_dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "*lead E"]) -> Float[Array, "*lead E"]:
        def dense(features: int, name: str) -> nn.Dense:
            return nn.Dense(features, use_bias=self.use_bias, dtype=self.dtype, param_dtype=self.param_dtype, name=name)

        return dense(self.features, "down")(nn.silu(dense(self.hidden, "gate")(x)) * dense(self.hidden, "up")(x))
