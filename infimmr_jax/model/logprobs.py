"""Log-probabilities of tokens in chunks, so that logits of a whole batch never exist."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

NEVER = -1e30


def scaled_logits(
    hidden: Float[Array, "*lead E"],
    kernel: Float[Array, "E V"],
    allowed: Bool[Array, "V"],
    temperature: float,
) -> Float[Array, "*lead V"]:
    """Float32 logits divided by `temperature`; NEVER where a token is not allowed."""
    logits = jnp.einsum("...e,ev->...v", hidden, kernel.astype(hidden.dtype), preferred_element_type=jnp.float32)
    return jnp.where(allowed, logits / temperature, NEVER)


def log_distribution(
    hidden: Float[Array, "*lead E"],
    kernel: Float[Array, "E V"],
    allowed: Bool[Array, "V"],
    temperature: float,
) -> Float[Array, "*lead V"]:
    """Float32 log-probabilities of the next token at `temperature`, over the allowed tokens only.

    Sampling and training call this same function: a temperature or a mask that only one of them applies makes every
    importance ratio wrong.
    """
    return jax.nn.log_softmax(scaled_logits(hidden, kernel, allowed, temperature), axis=-1)


def token_logprobs(
    hidden: Float[Array, "P G R E"],
    kernel: Float[Array, "E V"],
    targets: Int[Array, "P G R"],
    allowed: Bool[Array, "V"],
    temperature: float = 1.0,
    chunk: int = 1024,
) -> tuple[Float[Array, "P G R"], Float[Array, "P G R"]]:
    """Log-probability of every target and entropy of its distribution, about `chunk` tokens at a time.

    The chunks run along the response axis, so a sharded prompt axis stays where it is; each is computed again in the
    backward pass instead of being kept.
    """
    P, G, R, _ = hidden.shape
    width = min(R, max(1, chunk // (P * G)))
    padding = -R % width

    def cut(x: Array) -> Array:
        x = jnp.pad(x, [(0, 0), (0, 0), (0, padding)] + [(0, 0)] * (x.ndim - 3))
        return jnp.moveaxis(x.reshape(P, G, (R + padding) // width, width, *x.shape[3:]), 2, 0)

    @jax.checkpoint
    def one(item: tuple[Array, Array]) -> tuple[Array, Array]:
        rows, wanted = item
        log_probs = log_distribution(rows, kernel, allowed, temperature)
        entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)
        return jnp.take_along_axis(log_probs, wanted[..., None], axis=-1)[..., 0], entropy

    pieces = jax.lax.map(one, (cut(hidden), cut(targets)))
    return tuple(jnp.moveaxis(piece, 0, 2).reshape(P, G, R + padding)[..., :R] for piece in pieces)  # type: ignore
