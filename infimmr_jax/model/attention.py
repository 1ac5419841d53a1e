"""The one door to attention: bidirectional (vision), trunk, branch and decode forms, softmax in float32.

Letters: P prompts, G group, S trunk length, R response length, H query heads, K key/value heads, Q = H / K, D head
size, B any batch, T any length. Trunk and cache arrays are [.., K, slots, D]: a decode step reads that layout fastest.

Three ways to the same numbers: `xla` everywhere, in blocks of queries when there are many scores; `splash` (Pallas) on
TPUs; `cudnn` on GPUs for the trunk. Short sequences, windows and decoding always take `xla`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from infimmr_jax.parallel.sequence import sequence_size

# A finite bias: a row without any visible key gives a mean instead of NaN, and its gradient stays finite.
MASKED = -1e30
HALF = (jnp.bfloat16, jnp.float16)
IMPLEMENTATIONS = ("auto", "xla", "splash", "cudnn")
# Scores of one head and row that may exist at once; more are computed in blocks of queries of about half as many.
SCORES_AT_ONCE = 2**20
# Below this length a kernel's blocks would be mostly padding.
SHORTEST_FOR_KERNELS = 128


def choose_attention(name: str, dtype: jnp.dtype) -> str:
    """The implementation that `name` means on this process's default devices; `auto` never asks for the unsupported.

    Raises ValueError for an unknown name, and for cuDNN's attention in a dtype that it does not have.
    """
    if name not in IMPLEMENTATIONS:
        raise ValueError(f"attention {name!r} is unknown; choose one of {', '.join(IMPLEMENTATIONS)}")
    if name == "cudnn" and dtype not in HALF:
        raise ValueError(f"attention 'cudnn' computes in bfloat16 or float16, not {dtype}; choose 'xla' or bfloat16")
    if name != "auto":
        return name
    return best_attention(jax.default_backend(), dtype)


def best_attention(platform: str, dtype: jnp.dtype) -> str:
    """What `auto` means on devices of a platform (tpu, gpu, cpu)."""
    return {"tpu": "splash", "gpu": "cudnn" if dtype in HALF else "xla"}.get(platform, "xla")


def vision_attention(
    q: Float[Array, "B T H D"],
    k: Float[Array, "B T H D"],
    v: Float[Array, "B T H D"],
    mask: Bool[Array, "B T"],
    implementation: str = "xla",
) -> Float[Array, "B T H D"]:
    """Bidirectional attention in which every query sees the keys where `mask` is True."""
    T = q.shape[1]
    if implementation == "splash" and T >= SHORTEST_FOR_KERNELS:
        from infimmr_jax.model import splash  # Pallas takes a second to import, and only TPUs need it.

        return splash.vision_attention(q, k, v, mask)

    def attend(q: Float[Array, "B t H D"], _: Int[Array, "t"]) -> Float[Array, "B t H D"]:
        scores = jnp.einsum("bthd,bshd->bhts", q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
        weights = jax.nn.softmax(jnp.where(mask[:, None, None, :], scores, MASKED), axis=-1)
        return jnp.einsum("bhts,bshd->bthd", weights.astype(v.dtype), v)

    return _by_query_blocks(attend, q, axis=1, scores_per_query=T)


def trunk_attention(
    q: Float[Array, "P S H D"],
    k: Float[Array, "P K S D"],
    v: Float[Array, "P K S D"],
    mask: Bool[Array, "P S"],
    implementation: str = "xla",
    segments: Int[Array, "P S"] | None = None,
) -> Float[Array, "P S H D"]:
    """Causal attention of the prompt over itself; `mask` is True on real tokens (padding is on the right).

    With `segments` a row holds several sequences, which do not see each other (cuDNN leaves these to XLA).
    """
    P, S, H, D = q.shape
    # The kernels need no mask: padding is on the right, so no real token sees it, and nobody reads what padding sees.
    if implementation == "splash" and S >= SHORTEST_FOR_KERNELS:
        from infimmr_jax.model import splash  # Pallas takes a second to import, and only TPUs need it.

        return splash.trunk_attention(q, k, v, segments)
    # cuDNN's causal attention begins at the first key: queries of the middle of a prompt are not for it.
    if implementation == "cudnn" and S >= SHORTEST_FOR_KERNELS and segments is None and sequence_size() == 1:
        keys, values = k.swapaxes(1, 2), v.swapaxes(1, 2)
        return jax.nn.dot_product_attention(q, keys, values, is_causal=True, implementation="cudnn")

    def attend(
        q: Float[Array, "P t H D"], rows: Int[Array, "t"], k: Array, v: Array, mask: Array, segments: Array | None
    ) -> Float[Array, "P t H D"]:
        q = q.reshape(P, -1, k.shape[1], H // k.shape[1], D)
        scores = jnp.einsum("pskqd,pktd->pkqst", q, k, preferred_element_type=jnp.float32) * D**-0.5
        visible = (jnp.arange(S) <= rows[:, None]) & mask[:, None, :]
        if segments is not None:
            # Rows beyond S are padding of the blocks of queries.
            own = jnp.take(segments, rows, axis=1, mode="clip")
            visible &= own[:, :, None] == segments[:, None, :]
        weights = jax.nn.softmax(jnp.where(visible[:, None, None], scores, MASKED), axis=-1)
        return jnp.einsum("pkqst,pktd->pskqd", weights.astype(v.dtype), v).reshape(P, -1, H, D)

    def over(first: Array | None, q: Array, *seen: Any) -> Array:
        def block(q: Array, rows: Array) -> Array:
            return attend(q, rows if first is None else first + rows, *seen)

        return _by_query_blocks(block, q, axis=1, scores_per_query=S)

    return _each_its_queries(over, q, (k, v, mask, segments))


def branch_attention(
    q: Float[Array, "P G R H D"],
    k: Float[Array, "P G K R D"],
    v: Float[Array, "P G K R D"],
    trunk_k: Float[Array, "P K S D"],
    trunk_v: Float[Array, "P K S D"],
    trunk_mask: Bool[Array, "P S"],
    implementation: str = "xla",
) -> Float[Array, "P G R H D"]:
    """Attention of G branches over the trunk they share and, causally, over themselves: one softmax over both parts."""
    P, G, R, H, D = q.shape
    K, S = trunk_k.shape[1:3]
    if implementation == "splash" and R >= SHORTEST_FOR_KERNELS:
        from infimmr_jax.model import splash  # Pallas takes a second to import, and only TPUs need it.

        return splash.branch_attention(q, k, v, trunk_k, trunk_v, trunk_mask)

    def attend(q: Float[Array, "P G t H D"], rows: Int[Array, "t"]) -> Float[Array, "P G t H D"]:
        # In this order of axes the trunk's part is one product a prompt and key head, for all of its branches.
        q = q.reshape(P, G, -1, K, H // K, D).transpose(0, 3, 1, 2, 4, 5) * D**-0.5
        above = jnp.einsum("pkgrqd,pksd->pkgrqs", q, trunk_k, preferred_element_type=jnp.float32)
        own = jnp.einsum("pkgrqd,pgktd->pkgrqt", q, k, preferred_element_type=jnp.float32)
        above = jnp.where(trunk_mask[:, None, None, None, None, :], above, MASKED)
        own = jnp.where((jnp.arange(R) <= rows[:, None])[:, None], own, MASKED)
        above, own, total = _exponentials(above, own)
        out = jnp.einsum("pkgrqs,pksd->pkgrqd", above.astype(v.dtype), trunk_v, preferred_element_type=jnp.float32)
        out += jnp.einsum("pkgrqt,pgktd->pkgrqd", own.astype(v.dtype), v, preferred_element_type=jnp.float32)
        return (out / total).astype(v.dtype).transpose(0, 2, 3, 1, 4, 5).reshape(P, G, -1, H, D)

    return _by_query_blocks(attend, q, axis=2, scores_per_query=G * (S + R))


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
    R, K = k.shape[3], trunk_k.shape[1]
    q = q.reshape(P, G, K, -1, D) * D**-0.5
    # All branches of a prompt are the rows of one product with its trunk; the two parts' softmaxes are merged after.
    shared = q.swapaxes(1, 2).reshape(P, K, -1, D)
    above = jnp.einsum("pknd,pksd->pkns", shared, trunk_k, preferred_element_type=jnp.float32)
    own = jnp.einsum("pgkqd,pgktd->pgkqt", q, k, preferred_element_type=jnp.float32)
    above, above_top = _numerators(jnp.where(trunk_mask[:, None, None, :], above, MASKED))
    own, own_top = _numerators(jnp.where(jnp.arange(R) <= last, own, MASKED))
    mixed_above = jnp.einsum("pkns,pksd->pknd", above.astype(v.dtype), trunk_v, preferred_element_type=jnp.float32)
    mixed_own = jnp.einsum("pgkqt,pgktd->pgkqd", own.astype(v.dtype), v, preferred_element_type=jnp.float32)

    def by_branch(x: Float[Array, "P K GQ X"]) -> Float[Array, "P G K Q X"]:
        return x.reshape(P, K, G, -1, x.shape[-1]).swapaxes(1, 2)

    above_sum, above_top = by_branch(jnp.sum(above, axis=-1, keepdims=True)), by_branch(above_top)
    top = jnp.maximum(above_top, own_top)
    weight_above, weight_own = jnp.exp(above_top - top), jnp.exp(own_top - top)
    total = weight_above * above_sum + weight_own * jnp.sum(own, axis=-1, keepdims=True)
    out = (weight_above * by_branch(mixed_above) + weight_own * mixed_own) / total
    return out.astype(v.dtype).reshape(P, G, H, D)


def _each_its_queries(over: Callable[..., Array], q: Float[Array, "P S H D"], seen: tuple) -> Float[Array, "P S H D"]:
    """`over(index of its first query, queries, *seen)`, on each device along `sequence` for its part of the queries."""
    if sequence_size() == 1 or q.shape[1] % sequence_size():
        return over(None, q, *seen)

    def local(q: Array, *seen: Array | None) -> Array:
        # Told to vary, so that gradients of single blocks need no sum over devices.
        own = (None if x is None else jax.lax.pcast(x, ("sequence",), to="varying") for x in seen)
        return over(jax.lax.axis_index("sequence") * q.shape[1], q, *own)

    queries = PartitionSpec(None, "sequence")
    in_specs = (queries, *(PartitionSpec() for _ in seen))
    return jax.shard_map(local, in_specs=in_specs, out_specs=queries, axis_names={"sequence"})(q, *seen)


def _numerators(scores: Float[Array, "*lead T"]) -> tuple[Float[Array, "*lead T"], Float[Array, "*lead 1"]]:
    """Exponentials of scores less their maximum, and that maximum."""
    top = jnp.max(scores, axis=-1, keepdims=True)
    return jnp.exp(scores - top), top


def _exponentials(
    above: Float[Array, "*lead S"], own: Float[Array, "*lead R"]
) -> tuple[Float[Array, "*lead S"], Float[Array, "*lead R"], Float[Array, "*lead 1"]]:
    """Numerators of one softmax over two parts, and their common sum: the parts never lie in one array."""
    top = jnp.maximum(jnp.max(above, axis=-1), jnp.max(own, axis=-1))[..., None]
    above, own = (jnp.exp(part - jax.lax.stop_gradient(top)) for part in (above, own))
    return above, own, (jnp.sum(above, axis=-1) + jnp.sum(own, axis=-1))[..., None]


def _by_query_blocks(
    attend: Callable[[Array, Int[Array, "t"]], Array], q: Array, axis: int, scores_per_query: int
) -> Array:
    """`attend(queries, their indices)` along `axis` of q: at once, or in blocks that are computed again for gradients.

    So the scores of a long sequence never exist at once, neither forward nor kept for the backward pass.
    """
    T = q.shape[axis]
    if T * scores_per_query <= SCORES_AT_ONCE:
        return attend(q, jnp.arange(T))
    width = max(16, SCORES_AT_ONCE // 2 // scores_per_query)
    blocks = -(-T // width)
    padding = [(0, 0)] * q.ndim
    padding[axis] = (0, blocks * width - T)
    cut = jnp.pad(q, padding).reshape(*q.shape[:axis], blocks, width, *q.shape[axis + 1 :])
    rows = jnp.arange(blocks * width).reshape(blocks, width)
    step = jax.checkpoint(lambda item: attend(*item))
    out = jnp.moveaxis(jax.lax.map(step, (jnp.moveaxis(cut, axis, 0), rows)), 0, axis)
    return jax.lax.slice_in_dim(out.reshape(*out.shape[:axis], blocks * width, *out.shape[axis + 2 :]), 0, T, axis=axis)
