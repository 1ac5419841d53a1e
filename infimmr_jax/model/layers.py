"""Linen layers shared by the vision tower and the decoder."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from infimmr_jax.names import JsonObject
from infimmr_jax.parallel.sequence import sequence_size

# Layers that write to the residual stream start a tenth as large, so that the stream is the embedding at first: a small
# model then learns to copy from its prompt in half the steps (measured on the nano cold start; it is for new models).
DEFAULT_INIT = nn.initializers.lecun_normal()
RESIDUAL_INIT = nn.initializers.variance_scaling(0.01, "fan_in", "truncated_normal")


def apply(module: nn.Module, params: dict, *args: PyTree, method: Any = None) -> PyTree:
    """Run a layer as the pure function it is."""
    return module.apply({"params": params}, *args, method=method)


class RMSNorm(nn.Module):
    """Root-mean-square normalisation with a learned scale, in float32 (arXiv 1910.07467)."""

    eps: float
    param_dtype: jnp.dtype = jnp.dtype(jnp.float32)

    @nn.compact
    def __call__(self, x: Float[Array, "*lead E"]) -> Float[Array, "*lead E"]:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), self.param_dtype)
        wide = x.astype(jnp.float32)
        wide = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + self.eps)
        return (wide.astype(x.dtype) * scale.astype(x.dtype)).astype(x.dtype)


class Dense(nn.Dense):
    """A linear layer over rows: leading axes are folded into one.

    XLA's CPU backend takes almost twice as long for the gradient of the same product with several leading axes.
    """

    def __call__(self, inputs: Float[Array, "*lead E"]) -> Float[Array, "*lead F"]:
        if sequence_size() > 1:
            # Prompts and their tokens are both split: as one axis they can not be, and every device would make all.
            return super().__call__(inputs)
        rows = super().__call__(inputs.reshape(-1, inputs.shape[-1]))
        return rows.reshape(*inputs.shape[:-1], self.features)


class SwiGLU(nn.Module):
    """Gated feed-forward layer: down(silu(gate(x)) * up(x)) (arXiv 2002.05202)."""

    features: int
    hidden: int
    use_bias: bool
    dtype: jnp.dtype
    param_dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "*lead E"]) -> Float[Array, "*lead E"]:
        def dense(features: int, name: str, init: nn.initializers.Initializer = DEFAULT_INIT) -> Dense:
            dtypes: JsonObject = {"dtype": self.dtype, "param_dtype": self.param_dtype}
            return Dense(features, use_bias=self.use_bias, kernel_init=init, name=name, **dtypes)

        gated = nn.silu(dense(self.hidden, "gate")(x)) * dense(self.hidden, "up")(x)
        return dense(self.features, "down", RESIDUAL_INIT)(gated)
