"""Rows that are still being sampled, gathered into smaller static shapes, so that few wait for the longest answer.

A shape (P', G') holds P' bundles of up to G' branches of one prompt each. A prompt with more branches left than G' has
several bundles, each with a copy of the prompt's keys and values; their number is bounded. Where prompts are spread
over devices, each device compacts its own rows.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Int, PyTree

# The step from a shape to the next: smaller steps waste fewer rows and cost more programs.
RATIOS = 0.35, 0.82
# Bundles a prompt at most: copies of its keys and values are read with every token. Who asks for many shapes wants few
# wasted rows, and 4 pack tighter than 2.
BUNDLES, BUNDLES_OF_MANY, MANY = 2, 4, 6


@struct.dataclass
class Places:
    """Where the rows of a compacted batch come from, counted inside each shard: the prompt of every bundle, and the
    place (p * G + g) of every row in the shard's whole batch, which is one past the end for rows that are nobody's."""

    prompt: Int[Array, "P"]
    home: Int[Array, "P G"]


def compacted_shapes(P: int, G: int, count: int) -> tuple[tuple[int, int], ...]:
    """List the static shapes (bundles, branches) that P prompts of G branches are compacted into, largest first.

    At most `count`. Their rows fall by a fixed ratio, the one that would reach a single row two shapes later: with
    log-normal lengths most rows are saved by the first shapes (`tests/rollout/test_compaction.py` has the shares).
    """
    ratio = min(max((P * G) ** (-1 / (count + 2)), RATIOS[0]), RATIOS[1])
    bundles = BUNDLES_OF_MANY if count >= MANY else BUNDLES
    shapes: list[tuple[int, int]] = []
    before = P * G
    for number in range(1, count + 1):
        wanted = max(1, round(P * G * ratio**number))
        branches = -(-wanted // (bundles * P))
        shape = -(-wanted // branches), branches
        if shape[0] * shape[1] < before:
            shapes.append(shape)
            before = shape[0] * shape[1]
    return tuple(shapes)


def first_places(prompts: int, G: int, shards: int) -> Places:
    """Number the places of a whole batch of `shards` times `prompts`."""
    home = jnp.arange(prompts * G, dtype=jnp.int32).reshape(prompts, G)
    return Places(jnp.tile(jnp.arange(prompts, dtype=jnp.int32), shards), jnp.tile(home, (shards, 1)))


def fits(
    done: Bool[Array, "P G"], places: Places, prompts: int, shape: tuple[int, int], shards: int
) -> Bool[Array, ""]:
    """Tell whether the rows that are not done fit into `shape` on every shard of `prompts` prompts."""

    def needed(done: Array, prompt: Array) -> Array:
        return jnp.sum(-(-_alive(done, prompt, prompts) // shape[1]))

    parts = jax.vmap(needed)(_cut(done, shards), _cut(places.prompt, shards))
    return jnp.all(parts <= shape[0])


@struct.dataclass
class Moves:
    """For every row and every bundle of the next shape, the one it is taken from in the shape before; -1: nobody's."""

    rows: Int[Array, "D N"]
    bundles: Int[Array, "D B"]


def next_places(
    done: Bool[Array, "P G"], places: Places, prompts: int, nowhere: int, shape: tuple[int, int], shards: int
) -> tuple[Places, Bool[Array, "P2 G2"], Moves]:
    """Place the rows that are not done in `shape` (of a shard); they must fit.

    Rows that are nobody's are done, and `nowhere` is their home. Returns places, done, and how all else moves.
    """
    bundles, branches = shape
    G = done.shape[1]

    def plan(done: Array, prompt: Array) -> tuple[Array, Array]:
        """Source row of every new row (-1: nobody's) and source bundle of every new bundle."""
        owner = jnp.where(done, prompts, prompt[:, None]).reshape(-1)
        order = jnp.argsort(owner, stable=True)
        counts = _alive(done, prompt, prompts)
        needed = -(-counts // branches)
        real = owner[order] < prompts
        of = jnp.minimum(owner[order], prompts - 1)
        rank = jnp.arange(order.size) - (jnp.cumsum(counts) - counts)[of]
        bundle = jnp.where(real, (jnp.cumsum(needed) - needed)[of] + rank // branches, bundles)
        source = jnp.full((bundles, branches), -1).at[bundle, rank % branches].set(order, mode="drop")
        return source.reshape(-1), jnp.zeros(bundles, order.dtype).at[bundle].set(order // G, mode="drop")

    moves = Moves(*jax.vmap(plan)(_cut(done, shards), _cut(places.prompt, shards)))
    nobody = (moves.rows < 0).reshape(shards * bundles, branches)
    home = jnp.where(nobody, nowhere, gather_branches(places.home, moves))
    return Places(gather_prompts(places.prompt, moves), home), nobody, moves


def gather_branches(tree: PyTree, moves: Moves) -> PyTree:
    """Gather a tree of arrays [P, G, ..] into the next shape, [P2, G2, ..]; rows that are nobody's have any values."""
    (shards, count), bundles = moves.rows.shape, moves.bundles.shape[1]

    def one(x: Array) -> Array:
        flat = x.reshape(shards, -1, *x.shape[2:])
        taken = jax.vmap(lambda part, index: part[jnp.maximum(index, 0)])(flat, moves.rows)
        return taken.reshape(shards * bundles, count // bundles, *x.shape[2:])

    return jax.tree.map(one, tree)


def gather_prompts(tree: PyTree, moves: Moves) -> PyTree:
    """Gather a tree of arrays [P, ..] into the next shape, [P2, ..]."""

    def one(x: Array) -> Array:
        taken = jax.vmap(lambda part, index: part[index])(_cut(x, moves.bundles.shape[0]), moves.bundles)
        return taken.reshape(-1, *x.shape[1:])

    return jax.tree.map(one, tree)


def put_back(merged: PyTree, part: PyTree, home: Int[Array, "P2 G2"], shards: int) -> PyTree:
    """Write the rows of `part` [P2, G2, ..] to their places in trees of arrays [P, G, ..]."""
    index = home.reshape(shards, -1)

    def one(all_rows: Array, some: Array) -> Array:
        flat = all_rows.reshape(shards, -1, *all_rows.shape[2:])
        values = some.reshape(shards, -1, *some.shape[2:])
        done = jax.vmap(lambda to, at, value: to.at[at].set(value, mode="drop"))(flat, index, values)
        return done.reshape(all_rows.shape)

    return jax.tree.map(one, merged, part)


def _alive(done: Bool[Array, "P G"], prompt: Int[Array, "P"], prompts: int) -> Int[Array, "Q"]:
    """Count the rows left of every prompt of a shard."""
    return jnp.zeros(prompts, jnp.int32).at[prompt].add(jnp.sum(~done, axis=1, dtype=jnp.int32))


def _cut(x: Array, shards: int) -> Array:
    return x.reshape(shards, -1, *x.shape[1:])
