"""Attention by JAX's splash kernel (Pallas, TPU): scores stay on the chip, hidden blocks are skipped, gradients too.

Branches are one call: the keys of the trunk and of all its branches in a row, under a mask by which a branch sees the
trunk and its own past. The blocks of other branches are never visited, and the kernel's running maximum and sum merge
the two parts of the softmax. (The kernel's log-sum-exp output has no gradient, so merging two calls would need one
written by hand.)

On several devices it must be told how its arguments are split: call the model under `jax.set_mesh(mesh)`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from infimmr_jax.parallel.mesh import BATCH
from infimmr_jax.parallel.sequence import branch_axes, sequence_size

BLOCKS = (512, 256, 128)
# Run the kernel's Python instead of a TPU's program: for tests on other platforms.
INTERPRET = False


@dataclasses.dataclass(frozen=True)
class BranchMask(masks.Mask):
    """Visible keys [trunk, branch 0, branch 1, ..] of queries [branch 0, branch 1, ..]; read block by block."""

    trunk: int
    branches: int
    length: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.branches * self.length, self.trunk + self.branches * self.length

    def __getitem__(self, index: Any) -> np.ndarray:
        query = np.arange(self.shape[0])[index[0]][:, None]
        own = np.arange(self.shape[1])[index[1]][None] - self.trunk
        return (own < 0) | ((own // self.length == query // self.length) & (own <= query))


def vision_attention(
    q: Float[Array, "B T H D"], k: Float[Array, "B T H D"], v: Float[Array, "B T H D"], mask: Bool[Array, "B T"]
) -> Float[Array, "B T H D"]:
    """As `attention.vision_attention`; a padded query sees padding instead of what is real, which nobody reads."""
    T = q.shape[1]
    size = _padded(T)
    queries, keys, values = (_pad(x.swapaxes(1, 2), 2, size) for x in (q, k, v))
    segments = _pad(mask, 1, size).astype(jnp.int32)
    mask_of_all = masks.FullMask((size, size))
    out = _attend(mask_of_all, queries, keys, values, segments, segments, rows=branch_axes(q.shape[0]))
    return out[:, :, :T].swapaxes(1, 2)


def trunk_attention(
    q: Float[Array, "P S H D"],
    k: Float[Array, "P K S D"],
    v: Float[Array, "P K S D"],
    segments: Int[Array, "P S"] | None = None,
) -> Float[Array, "P S H D"]:
    """As `attention.trunk_attention`: causal, with all padding on the right."""
    P, S = q.shape[:2]
    parts = 1 if S % sequence_size() else sequence_size()
    # Every device along `sequence` has whole blocks of queries.
    size = _padded(S // parts) * parts if S % (BLOCKS[-1] * parts) else S
    queries, keys, values = (_pad(x, 2, size) for x in (q.swapaxes(1, 2), k, v))
    segments = jnp.ones((P, size), jnp.int32) if segments is None else _pad(segments, 1, size)
    out = _attend(masks.CausalMask((size, size), shard_count=parts), queries, keys, values, segments, segments, parts)
    return out[:, :, :S].swapaxes(1, 2)


def branch_attention(
    q: Float[Array, "P G R H D"],
    k: Float[Array, "P G K R D"],
    v: Float[Array, "P G K R D"],
    trunk_k: Float[Array, "P K S D"],
    trunk_v: Float[Array, "P K S D"],
    trunk_mask: Bool[Array, "P S"],
) -> Float[Array, "P G R H D"]:
    """As `attention.branch_attention`, in one pass over the keys of the trunk and of all branches."""
    P, G, R, H, D = q.shape
    trunk, length = _padded(trunk_k.shape[2]), _padded(R)
    queries = _pad(jnp.moveaxis(q, 3, 1), 3, length).reshape(P, H, G * length, D)

    def joined(above: Float[Array, "P K S D"], own: Float[Array, "P G K R D"]) -> Float[Array, "P K T D"]:
        rows = _pad(own.swapaxes(1, 2), 3, length)
        return jnp.concatenate([_pad(above, 2, trunk), rows.reshape(P, -1, G * length, D)], axis=2)

    own = jnp.ones((P, G * length), jnp.int32)
    segments = jnp.concatenate([_pad(trunk_mask, 1, trunk).astype(jnp.int32), own], axis=1)
    mask = BranchMask(trunk, G, length)
    out = _attend(mask, queries, joined(trunk_k, k), joined(trunk_v, v), own, segments, rows=branch_axes(P))
    return jnp.moveaxis(out.reshape(P, H, G, length, D)[:, :, :, :R], 1, 3)


def _attend(
    mask: masks.Mask,
    q: Float[Array, "B H T D"],
    k: Float[Array, "B K S D"],
    v: Float[Array, "B K S D"],
    query_segments: Int[Array, "B T"],
    key_segments: Int[Array, "B S"],
    parts: int = 1,
    rows: tuple[str, ...] = BATCH,
) -> Float[Array, "B H T D"]:
    """The kernel over every row, on each device for its own rows (over the mesh axes `rows`) and heads.

    The queries of a row lie on `parts` devices along `sequence`, each of which sees all keys.
    """

    def kernel_for(heads: int) -> Any:
        block_q = next(size for size in BLOCKS if q.shape[2] // parts % size == 0)
        block_kv = next(size for size in BLOCKS if k.shape[2] % size == 0)
        sizes = kernels.BlockSizes(
            block_q=block_q,
            block_kv=block_kv,
            block_q_dkv=block_q,
            block_kv_dkv=block_kv,
            block_q_dq=block_q,
            block_kv_dq=block_kv,
        )
        return kernels.make_splash_mha(
            masks.MultiHeadMask([mask] * heads),
            block_sizes=sizes,
            head_shards=1,
            q_seq_shards=parts,
            interpret=INTERPRET,
        )

    def local(q: Array, k: Array, v: Array, query_segments: Array, key_segments: Array, kernel: Any = None) -> Array:
        kernel = kernel_for(q.shape[1]) if kernel is None else kernel
        scaled = q * jnp.asarray(q.shape[-1] ** -0.5, q.dtype)
        return jax.vmap(kernel)(scaled, k, v, kernels.SegmentIds(query_segments, key_segments))

    arrays: tuple = (q, k, v, query_segments, key_segments)
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return local(*arrays)
    divides = k.shape[1] % mesh.shape["tensor"] == 0
    heads, along = "tensor" if divides else None, "sequence" if parts > 1 else None
    queries, keys = PartitionSpec(rows, heads, along), PartitionSpec(rows, heads)
    specs: tuple = (queries, keys, keys, PartitionSpec(rows, along), PartitionSpec(rows))
    if parts > 1:
        # The blocks that a device visits depend on where its queries lie: they are an argument that is split too.
        kernel = kernel_for(q.shape[1] // (mesh.shape["tensor"] if divides else 1))
        arrays += (kernel,)
        specs += (kernel.manual_sharding_spec(NamedSharding(mesh, PartitionSpec(None, along))),)
    return jax.shard_map(local, in_specs=specs, out_specs=queries, check_vma=False)(*arrays)


def _padded(size: int) -> int:
    """A length that blocks divide: short ones in steps of the smallest block, long ones of the largest."""
    step = BLOCKS[-1] if size <= 1024 else BLOCKS[0]
    return -(-size // step) * step


def _pad(x: Array, axis: int, size: int) -> Array:
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, size - x.shape[axis])
    return jnp.pad(x, widths)
