"""The `sequence` axis: devices that share their prompts split their tokens, their pictures, and their branches.

Branches need nothing of each other, only their trunk: a group of G is dealt out as n groups of G / n, each with the
trunk's keys and values, so that all code of branches stays as it is. On a mesh where the axis is 1, and where a size
does not divide, arrays come back as they are.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, PyTree

from infimmr_jax.parallel.mesh import ACTIVATION_RULES, BATCH, BRANCHES, axis_size


def sequence_size() -> int:
    """Devices along `sequence` of the mesh in use; 1 without a mesh."""
    return axis_size(jax.sharding.get_abstract_mesh(), "sequence")


def lay(x: Array, rule: str, before: int = 0) -> Array:
    """`x` as a rule of ACTIVATION_RULES says, whose axes come after `before` others (of layers)."""
    mesh = jax.sharding.get_abstract_mesh()
    if sequence_size() == 1:
        return x
    spec = (*(P.UNCONSTRAINED,) * before, *ACTIVATION_RULES[rule])
    for size, names in zip(x.shape, spec, strict=False):
        if isinstance(names, tuple | str) and size % axis_size(mesh, names):
            return x
    return jax.lax.with_sharding_constraint(x, P(*spec, *(P.UNCONSTRAINED,) * (x.ndim - len(spec))))


def branch_axes(P: int) -> tuple[str, ...]:
    """The mesh axes that P groups of branches lie over."""
    mesh = jax.sharding.get_abstract_mesh()
    return BATCH if sequence_size() == 1 or P % axis_size(mesh, BRANCHES) else BRANCHES


def shares_of(G: int) -> int:
    """Into how many parts every group of G branches is dealt out."""
    return 1 if G % sequence_size() else sequence_size()


def with_copies(x: Array, parts: int, axis: int = 0) -> Array:
    """Arrays of prompts [.., P, ..] for `parts` parts of every group: [.., P * parts, ..]."""
    return x if parts == 1 else lay(jnp.repeat(x, parts, axis=axis), "branches", before=axis)


def dealt(x: Array, parts: int) -> Array:
    """Arrays of branches [P, G, ..] dealt out: [P * parts, G / parts, ..]."""
    P, G, *rest = x.shape
    return x if parts == 1 else lay(x.reshape(P * parts, G // parts, *rest), "branches")


def collected(tree: PyTree, parts: int) -> PyTree:
    """The inverse of `dealt`, for trees; numbers without axes stay."""

    def one(x: Array) -> Array:
        if x.ndim == 0 or parts == 1:
            return x
        return lay(x, "branches").reshape(x.shape[0] // parts, x.shape[1] * parts, *x.shape[2:])

    return jax.tree.map(one, tree)
