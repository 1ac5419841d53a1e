"""The sampler as programs of its own for each token loop, so that the host can read what is finished in between."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from infimmr_jax.model.family import Model
from infimmr_jax.model.trunk import LayerCache, Params
from infimmr_jax.parallel.mesh import BATCH, batch_divisor
from infimmr_jax.preprocess.batching import PromptBatch
from infimmr_jax.rollout.compaction import Moves, moved_bundles, moved_rows
from infimmr_jax.rollout.sampler import begin_stages, initial_state, run_loop
from infimmr_jax.rollout.stages import cache_lengths, longer, next_stage, stage_count
from infimmr_jax.rollout.state import Rollouts, SamplerState, SampleSettings, Stage


@dataclasses.dataclass(frozen=True)
class StagedSampler:
    """The jitted programs: prefill, the state before the first token, token loop, end of a stage, and what moves the
    keys and values of a layer: growth and compaction of its cache, compaction of its prompts.

    Loops work in place. Where shapes change nothing can be taken over, so layers go one by one: their caches are most
    of the memory, and are never there twice.
    """

    settings: SampleSettings
    begin: Callable
    empty: Callable
    loop: Callable
    end: Callable
    grow: Callable
    move_rows: Callable
    move_bundles: Callable


def staged_sampler(
    model: Model, settings: SampleSettings, stops: Any, mesh: Mesh, rollouts: NamedSharding
) -> StagedSampler:
    """The programs of a sampler on a mesh; `rollouts` is the sharding of all arrays of Rollouts."""
    shards = batch_divisor(mesh)

    def begin(params: Params, batch: PromptBatch, key: jax.Array) -> tuple:
        trunk = model.trunk(params, batch)
        weights, stage = begin_stages(params, model, settings, trunk, key, None, shards)
        return weights, _by_rows(stage, mesh)

    # Not made by the prefill: empty caches beside its temporaries would be the most memory that sampling ever takes.
    def empty(stage: Stage, batch: PromptBatch) -> SamplerState:
        return _laid(initial_state(model, settings, stage.start, batch, stops), mesh)

    def loop(state: SamplerState, stage: Stage, weights: Any, allowed: Any, number: int, P: int, end: int) -> Any:
        given = (state, stage, weights, allowed, stops, model, settings)
        return _laid(run_loop(*given, number=number, P=P, end=end, shards=shards), mesh)

    def end(state: SamplerState, stage: Stage, whole: Rollouts | None, number: int, P: int) -> tuple:
        whole, stage, state, moves = next_stage(state, stage, whole, settings, number, P, shards)
        whole = jax.lax.with_sharding_constraint(whole, rollouts)
        return whole, *_by_rows((stage, state, moves), mesh)

    def grow(layer: LayerCache, length: int) -> LayerCache:
        return _by_heads(longer(layer, length), mesh)

    def move_rows(layer: LayerCache, moves: Moves) -> LayerCache:
        return _by_heads(moved_rows(layer, moves), mesh)

    def move_bundles(layer: Any, moves: Moves) -> Any:
        return _by_rows(moved_bundles(layer, moves), mesh)

    return StagedSampler(
        settings,
        jax.jit(begin),
        jax.jit(empty),
        jax.jit(loop, static_argnums=(4, 5, 6), donate_argnums=0),
        jax.jit(end, static_argnums=(3, 4)),
        jax.jit(grow, static_argnums=1),
        jax.jit(move_rows),
        jax.jit(move_bundles),
    )


def sample_staged(
    sampler: StagedSampler, params: Params, batch: PromptBatch, allowed: Any, key: jax.Array, shards: int
) -> tuple[list[Rollouts], jax.Array]:
    """Give all programs to the devices at once; returns the rollouts after every token loop, and the executed rows."""
    settings, P = sampler.settings, batch.row_mask.shape[0]
    lengths = cache_lengths(settings)
    weights, stage = sampler.begin(params, batch, key)
    state = sampler.empty(stage, batch)
    found: list[Rollouts] = []
    for number in range(stage_count(P, settings.group_size, settings, shards)):
        for length, following in itertools.pairwise(lengths) if number == 0 else ():
            state = sampler.loop(state, stage, weights, allowed, number, P, length)
            state, caches = dataclasses.replace(state, caches=()), list(state.caches)
            state = dataclasses.replace(state, caches=_layer_by_layer(caches, sampler.grow, following))
        state = sampler.loop(state, stage, weights, allowed, number, P, lengths[-1])
        state, caches = dataclasses.replace(state, caches=()), list(state.caches)
        stage, kv = dataclasses.replace(stage, kv=()), list(stage.kv)
        whole, stage, state, moves = sampler.end(state, stage, found[-1] if found else None, number, P)
        found.append(whole)
        if moves is not None:
            state = dataclasses.replace(state, caches=_layer_by_layer(caches, sampler.move_rows, moves))
            stage = dataclasses.replace(stage, kv=_layer_by_layer(kv, sampler.move_bundles, moves))
    return found, state.executed


def _layer_by_layer(layers: list, move: Callable, how: Any) -> tuple:
    """Every layer moved; the list gives up each as its turn comes, so that its memory is free for the next."""
    layers.reverse()
    return tuple(move(layers.pop(), how) for _ in range(len(layers)))


def _by_rows(tree: Any, mesh: Mesh) -> Any:
    """Arrays whose first axis is split over the batch axes; a program that only makes them can not know it."""

    def one(x: jax.Array) -> jax.Array:
        spec = PartitionSpec(BATCH, *(PartitionSpec.UNCONSTRAINED,) * (x.ndim - 1)) if x.ndim else PartitionSpec()
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))

    return jax.tree.map(one, tree)


def _laid(state: SamplerState, mesh: Mesh) -> SamplerState:
    """The state by rows, its caches also by heads."""
    state = _by_rows(state, mesh)
    return dataclasses.replace(state, caches=_by_heads(state.caches, mesh))


def _by_heads(caches: Any, mesh: Mesh) -> Any:
    """Caches [P, G, K, R, D] by rows, and by key/value heads where `tensor` divides them."""

    def one(x: jax.Array) -> jax.Array:
        heads = "tensor" if x.shape[2] % mesh.shape["tensor"] == 0 else None
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec(BATCH, None, heads)))

    return jax.tree.map(one, caches)


__all__ = ["StagedSampler", "sample_staged", "staged_sampler"]
