"""Log-probabilities of tokens in chunks, so that logits of a whole batch never exist."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from infimmr_jax.parallel.gather import whole_head
from infimmr_jax.parallel.mesh import axis_size, batch_divisor
from infimmr_jax.parallel.sequence import branch_axes

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


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _of_chunk(
    hidden: Float[Array, "P G C E"],
    kernel: Float[Array, "E V"],
    targets: Int[Array, "P G C"],
    allowed: Bool[Array, "V"],
    temperature: float,
) -> tuple[Float[Array, "P G C"], Float[Array, "P G C"]]:
    """Log-probabilities of the targets and entropies; the backward pass computes the logits again and keeps nothing.

    With z the scaled logits, p their softmax and H its entropy: d log p_t / dz = 1_t - p, dH / dz = -p (log p + H).
    Plain differentiation of the same formulas holds three more arrays of the logits' size at once.
    """
    return _of_chunk_forward(hidden, kernel, targets, allowed, temperature)[0]


def _of_chunk_forward(hidden: Array, kernel: Array, targets: Array, allowed: Array, temperature: float) -> tuple:
    scaled = scaled_logits(hidden, kernel, allowed, temperature)
    total = jax.nn.logsumexp(scaled, axis=-1)
    entropy = total - jnp.sum(jnp.exp(scaled - total[..., None]) * scaled, axis=-1)
    found = jnp.take_along_axis(scaled, targets[..., None], axis=-1)[..., 0] - total
    return (found, entropy), (hidden, kernel, targets, allowed, total, entropy)


def _of_chunk_backward(temperature: float, kept: tuple, gradients: tuple[Array, Array]) -> tuple:
    hidden, kernel, targets, allowed, total, entropy = kept
    of_found, of_entropy = (gradient[..., None] for gradient in gradients)
    log_p = scaled_logits(hidden, kernel, allowed, temperature) - total[..., None]
    hit = jnp.arange(kernel.shape[1]) == targets[..., None]
    slope = jnp.where(hit, of_found, 0.0) - jnp.exp(log_p) * (of_found + of_entropy * (log_p + entropy[..., None]))
    slope = (jnp.where(allowed, slope, 0.0) / temperature).astype(hidden.dtype)
    rows, slopes = hidden.reshape(-1, hidden.shape[-1]), slope.reshape(-1, slope.shape[-1])
    of_hidden = (slopes @ kernel.astype(hidden.dtype).T).reshape(hidden.shape)
    of_kernel = jnp.matmul(rows.T, slopes, preferred_element_type=jnp.float32).astype(kernel.dtype)
    return of_hidden, of_kernel, None, None


_of_chunk.defvjp(_of_chunk_forward, _of_chunk_backward)


@jax.named_scope("head")
def token_logprobs(
    hidden: Float[Array, "P G R E"],
    kernel: Float[Array, "E V"],
    targets: Int[Array, "P G R"],
    allowed: Bool[Array, "V"],
    temperature: float = 1.0,
    chunk: int = 1024,
) -> tuple[Float[Array, "P G R"], Float[Array, "P G R"]]:
    """Log-probability of every target and entropy of its distribution, about `chunk` tokens of a device at a time.

    The chunks run along the response axis, so a sharded prompt axis stays where it is; each is computed again in the
    backward pass instead of being kept. On a mesh every device gathers the kernel once and sums its own gradient over
    its chunks: left to the partitioner, both cross the links with every chunk.
    """

    def local(hidden: Array, kernel: Array, targets: Array, allowed: Array) -> tuple[Array, Array]:
        return _by_chunks(hidden, kernel, targets, allowed, temperature, chunk)

    mesh = jax.sharding.get_abstract_mesh()
    axes = branch_axes(hidden.shape[0])
    if mesh.empty or hidden.shape[0] % batch_divisor(mesh) or axis_size(mesh, axes) == 1:
        return local(hidden, kernel, targets, allowed)
    rows, split = PartitionSpec(axes), kernel.shape[0] % mesh.shape["fsdp"] == 0

    def on_a_device(hidden: Array, kernel: Array, targets: Array, allowed: Array) -> tuple[Array, Array]:
        # Told to vary over all devices, so that gradients of single chunks need no sum over any of them.
        whole = whole_head(kernel, hidden.dtype) if split else kernel
        copies = tuple(axis for axis in axes if axis != "fsdp") if split else axes
        whole = jax.lax.pcast(whole, copies, to="varying")
        return local(hidden, whole, targets, jax.lax.pcast(allowed, axes, to="varying"))

    return jax.shard_map(
        on_a_device,
        in_specs=(rows, PartitionSpec("fsdp" if split else None), rows, PartitionSpec()),
        out_specs=rows,
        axis_names=set(axes),
    )(hidden, kernel, targets, allowed)


def _by_chunks(
    hidden: Float[Array, "P G R E"],
    kernel: Float[Array, "E V"],
    targets: Int[Array, "P G R"],
    allowed: Bool[Array, "V"],
    temperature: float,
    chunk: int,
) -> tuple[Float[Array, "P G R"], Float[Array, "P G R"]]:
    P, G, R, _ = hidden.shape
    width = min(R, max(1, chunk // (P * G)))
    # As many chunks, as even as can be: with 40 tokens in chunks of 32 a third of all logits would be padding.
    width = -(-R // -(-R // width))
    padding = -R % width

    def cut(x: Array) -> Array:
        x = jnp.pad(x, [(0, 0), (0, 0), (0, padding)] + [(0, 0)] * (x.ndim - 3))
        return jnp.moveaxis(x.reshape(P, G, (R + padding) // width, width, *x.shape[3:]), 2, 0)

    def one(item: tuple[Array, Array]) -> tuple[Array, Array]:
        rows, wanted = item
        return _of_chunk(rows, kernel, wanted, allowed, temperature)

    pieces = jax.lax.map(one, (cut(hidden), cut(targets)))
    return tuple(jnp.moveaxis(piece, 0, 2).reshape(P, G, R + padding)[..., :R] for piece in pieces)  # type: ignore
