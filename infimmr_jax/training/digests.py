"""Digests of what a checkpoint holds: of arrays on their devices, and of facts as JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, UInt32

from infimmr_jax.errors import UserError
from infimmr_jax.names import JsonValue

Json: TypeAlias = JsonValue
Tree = TypeVar("Tree")
_ODD = np.uint32(0x9E3779B1)  # odd, its bits without a pattern (the golden ratio): it spreads places over the words
_SEAL = "digest"


class DamagedError(UserError, ValueError):
    """What was read is not what was written: the sentence names the part."""


def array_digests(tree: object) -> dict[str, str]:
    """A digest of every array of a tree, by its path: 16 hexadecimal digits and the dtype.

    Two sums modulo 2^32 over a hash of every element's bits and place, so the digest is the same on every mesh, any
    changed element changes it, and it costs one pass over the memory of the devices: no copy, no second reading of
    files. All processes must call this.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    if not leaves:
        return {}
    sums = np.asarray(jax.device_get(_sums([leaf for _, leaf in leaves])))
    return {
        _name(path): f"{first:08x}{second:08x} {leaf.dtype}"
        for (path, leaf), (first, second) in zip(leaves, sums.tolist(), strict=True)
    }


def check_arrays(tree: object, wanted: Mapping[str, str]) -> None:
    """Raise DamagedError naming the arrays of a tree whose digest is another one than `wanted` says."""
    own = array_digests(tree)
    bad = [path for path, digest in own.items() if wanted.get(path) != digest]
    if bad:
        more = f" and {len(bad) - 1} more arrays" if len(bad) > 1 else ""
        raise DamagedError(f"{bad[0]}{more} not as saved: the digest differs")


def as_written(abstract: Tree, digests: Mapping[str, str]) -> Tree:
    """Shapes and shardings of `abstract` with the dtypes that the digests were made of."""

    def one(path: tuple[object, ...], leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        _, _, dtype = digests.get(_name(path), "").partition(" ")
        if dtype in ("", str(leaf.dtype)):
            return leaf
        return jax.ShapeDtypeStruct(leaf.shape, jnp.dtype(dtype), sharding=leaf.sharding)

    return jax.tree_util.tree_map_with_path(one, abstract)


def in_dtypes(tree: Tree, abstract: object) -> Tree:
    """The arrays of a tree in the dtypes of `abstract`, where they were stored in others."""
    return jax.tree.map(lambda x, like: x if x.dtype == like.dtype else x.astype(like.dtype), tree, abstract)


def seal(facts: dict[str, Json]) -> dict[str, Json]:
    """The facts, as JSON gives them back, with a digest of themselves."""
    plain = json.loads(json.dumps(facts))
    return {**plain, _SEAL: _digest_of_json(plain)}


def unseal(text: str | bytes) -> dict[str, Json]:
    """The facts of a JSON text; DamagedError when it is not as sealed. One of an older program has no seal."""
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"the facts are no JSON: {error}") from error
    if not isinstance(facts, dict):
        raise DamagedError("the facts are no JSON object")
    digest = facts.pop(_SEAL, None)
    if digest is not None and digest != _digest_of_json(facts):
        raise DamagedError("the facts are not as saved: the digest differs")
    return facts


def _name(path: tuple[object, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _digest_of_json(tree: dict[str, Json]) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


@jax.jit
def _sums(arrays: list[Array]) -> UInt32[Array, "leaves 2"]:
    return jnp.stack([jnp.stack(_sum(array)) for array in arrays])


def _sum(array: Array) -> tuple[UInt32[Array, ""], UInt32[Array, ""]]:
    bits = _bits(array)
    # Strides are taken modulo 2^32, as all the arithmetic is.
    place = jnp.zeros(bits.shape, jnp.uint32)
    stride = 1
    for axis in reversed(range(bits.ndim)):
        place += lax.broadcasted_iota(jnp.uint32, bits.shape, axis) * np.uint32(stride % 2**32)
        stride *= bits.shape[axis]
    mixed = _mix(bits ^ (place * _ODD + _ODD))
    # One reduction of both sums reads the array once (ten times the speed of two on a CPU).
    both = mixed, mixed * (2 * place + 1)
    zeros = np.uint32(0), np.uint32(0)
    return lax.reduce(both, zeros, lambda x, y: (x[0] + y[0], x[1] + y[1]), tuple(range(bits.ndim)))


def _bits(array: Array) -> UInt32[Array, "..."]:
    """The bits of every element in words of 32; 64-bit elements get a last axis of two words."""
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    if array.dtype == jnp.bool_:
        return array.astype(jnp.uint32)
    width = array.dtype.itemsize * 8
    if array.dtype in (jnp.int4, jnp.uint4):
        return array.astype(jnp.int8).view(jnp.uint8).astype(jnp.uint32)
    words = {8: jnp.uint8, 16: jnp.uint16, 32: jnp.uint32, 64: jnp.uint32}[width]
    return lax.bitcast_convert_type(array, words).astype(jnp.uint32)


def _mix(x: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """A bijection of 32-bit words (the finaliser of MurmurHash3): no two different elements mix to the same."""
    x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


__all__ = [
    "DamagedError",
    "Json",
    "array_digests",
    "as_written",
    "check_arrays",
    "in_dtypes",
    "seal",
    "unseal",
]
