"""Fully sharded parameters made whole where they are used: once a layer, in the compute dtype, and not piece by piece.

Left alone, the partitioner may keep a weight split along the axis that a product sums over: a device then multiplies
piece by piece into the whole result, and the result goes through memory once a piece (`docs/scaling.md`).
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, PyTree

from infimmr_jax.parallel.mesh import parameter_spec, path_of


def whole_parameters(tree: PyTree, prefix: str, dtype: jnp.dtype) -> PyTree:
    """The parameters below `prefix` with matrices in `dtype` and whole over `fsdp` (still split over `tensor`).

    Their gradients come back in the parameters' dtype, split over `fsdp` again. Without a mesh in use, or with an
    `fsdp` axis of 1, the tree is returned as it is.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.shape["fsdp"] == 1:
        return tree

    def one(path: tuple, leaf: Array) -> Array:
        split = parameter_spec("/".join((prefix, path_of(path))), leaf.shape, mesh)
        if "fsdp" not in split:
            return leaf
        whole = P(*(None if axis == "fsdp" else axis for axis in split))
        return _gather(leaf, whole, split, dtype, leaf.dtype)

    return jax.tree_util.tree_map_with_path(one, tree)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def _gather(x: Array, whole: P, split: P, dtype: jnp.dtype, own: jnp.dtype) -> Array:
    return jax.lax.with_sharding_constraint(x.astype(dtype), whole)


def _forward(x: Array, whole: P, split: P, dtype: jnp.dtype, own: jnp.dtype) -> tuple[Array, None]:
    return _gather(x, whole, split, dtype, own), None


def _backward(whole: P, split: P, dtype: jnp.dtype, own: jnp.dtype, _: None, gradient: Array) -> tuple[Array]:
    return (jax.lax.with_sharding_constraint(gradient, split).astype(own),)


_gather.defvjp(_forward, _backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def whole_head(kernel: Float[Array, "e V"], dtype: jnp.dtype) -> Float[Array, "E V"]:
    """Inside `shard_map` over the batch axes: the output matrix whole over `fsdp`, rounded to `dtype` on its way.

    It keeps its own dtype, so that gradients of many chunks are summed in it; the sum over devices is made once.
    """
    return jax.lax.all_gather(kernel.astype(dtype), "fsdp", tiled=True).astype(kernel.dtype)


def _head_forward(kernel: Array, dtype: jnp.dtype) -> tuple[Array, None]:
    return whole_head(kernel, dtype), None


def _head_backward(dtype: jnp.dtype, _: None, gradient: Array) -> tuple[Array]:
    return (jax.lax.psum_scatter(gradient, "fsdp", tiled=True),)


whole_head.defvjp(_head_forward, _head_backward)
