"""Digests: an independent NumPy version, every single bit, every mesh; facts that seal themselves."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from infimmr_jax.training.digests import DamagedError, array_digests, check_arrays, seal, unseal

SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from infimmr_jax.training.digests import array_digests
x = jax.random.normal(jax.random.key(0), (8, 6))
mesh = jax.make_mesh((4, 2), ("a", "b"))
specs = [P(), P("a"), P("a", "b"), P("b", None)]
print(*{array_digests(jax.device_put(x, NamedSharding(mesh, spec)))[""] for spec in specs})
"""


def by_hand(array: np.ndarray) -> str:
    """The definition, element by element, in Python's integers."""
    words = array.reshape(-1).view({1: np.uint8, 2: np.uint16, 4: np.uint32}[array.dtype.itemsize]).tolist()
    most, odd, first, second = 2**32, 0x9E3779B1, 0, 0
    for place, word in enumerate(words):
        x = word ^ ((place * odd + odd) % most)
        x = (x ^ (x >> 16)) * 0x85EBCA6B % most
        x = (x ^ (x >> 13)) * 0xC2B2AE35 % most
        x ^= x >> 16
        first, second = (first + x) % most, (second + x * (2 * place + 1)) % most
    return f"{first:08x}{second:08x} {array.dtype}"


@pytest.mark.parametrize("dtype", [np.float32, np.int32, jnp.bfloat16, np.int8, np.uint32, np.float16])
def test_the_definition(dtype: type) -> None:
    array = np.random.default_rng(0).normal(0, 50, (3, 4, 5)).astype(dtype)
    assert array_digests({"a": {"b": jnp.asarray(array)}}) == {"a.b": by_hand(array)}


def test_every_single_flip_changes_it() -> None:
    array = np.random.default_rng(1).normal(size=6).astype(np.float32)
    flipped = np.repeat(array[None], 192, 0).view(np.uint32)
    for bit in range(192):
        flipped[bit, bit // 32] ^= np.uint32(1 << (bit % 32))
    digests = {array_digests(jnp.asarray(row.view(np.float32)))[""] for row in flipped}
    assert len(digests | {array_digests(jnp.asarray(array))[""]}) == 193


def test_what_is_equal_as_a_number_is_not_equal() -> None:
    zeros, other = jnp.zeros(4), jnp.zeros((2, 2))
    assert array_digests(zeros) != array_digests(-zeros)
    assert array_digests(jnp.array([1.0, 2.0])) != array_digests(jnp.array([2.0, 1.0]))
    assert array_digests(zeros) == array_digests(other), "shapes are checked where arrays are read"
    assert array_digests(jax.random.key(1)) != array_digests(jax.random.key(2))
    assert array_digests(jnp.array([True, False])) != array_digests(jnp.array([True, True]))
    assert array_digests(()) == {}


def test_the_mesh_does_not_matter() -> None:
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    made = subprocess.run([sys.executable, "-c", SHARDED], env=environment, capture_output=True, text=True, check=True)
    assert made.stdout.strip() == by_hand(np.asarray(jax.random.normal(jax.random.key(0), (8, 6))))


def test_another_array_is_named() -> None:
    arrays = {"a": jnp.ones(3), "b": jnp.ones(3)}
    wanted = array_digests(arrays)
    check_arrays(arrays, wanted)
    with pytest.raises(DamagedError, match=r"^b not as saved"):
        check_arrays(arrays | {"b": jnp.ones(3).at[1].set(jnp.nan)}, wanted)
    with pytest.raises(DamagedError, match=r"^a and 1 more arrays"):
        check_arrays(arrays, {})


def test_facts_seal_themselves() -> None:
    facts = {"place": {"step": 3, "key": [1, 2]}, "id": "\ud800 é", "rate": 1e-3, "none": None}
    text = json.dumps(seal(facts))
    assert unseal(text) == facts
    for damaged in (text.replace("3", "4", 1), text[: len(text) // 2], "[]", "", "[" * 100_000):
        with pytest.raises(DamagedError):
            unseal(damaged)
    assert unseal('{"older": 1}') == {"older": 1}
