"""The sampler as programs of its own for each token loop, so that the host can read what is finished in between."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from infimmr_jax.model.config import ModelConfig
from infimmr_jax.model.options import ModelOptions
from infimmr_jax.model.qwen2_5_vl import Params, trunk_forward
from infimmr_jax.parallel.mesh import BATCH, batch_divisor
from infimmr_jax.preprocess.batching import PromptBatch
from infimmr_jax.rollout.sampler import (
    Rollouts,
    SamplerState,
    SampleSettings,
    Stage,
    begin_stages,
    cache_lengths,
    end_stage,
    grown,
    initial_state,
    run_loop,
    stage_count,
)


@dataclasses.dataclass(frozen=True)
class StagedSampler:
    """The jitted programs: prefill, the state before the first token, token loop, growth of caches, compaction.

    Loops work in place; where shapes change, nothing could be taken over.
    """

    settings: SampleSettings
    begin: Callable
    empty: Callable
    loop: Callable
    grow: Callable
    end: Callable


def staged_sampler(
    config: ModelConfig, options: ModelOptions, settings: SampleSettings, stops: Any, mesh: Mesh, rollouts: Any
) -> StagedSampler:
    """The programs of a sampler on a mesh; `rollouts` are the shardings of Rollouts."""
    shards = batch_divisor(mesh)

    def begin(params: Params, batch: PromptBatch, key: jax.Array) -> tuple:
        trunk = trunk_forward(params, config, options, batch)
        weights, stage = begin_stages(params, config, options, settings, trunk, key, None, shards)
        return weights, _by_rows(stage, mesh)

    # Not made by the prefill: empty caches beside its temporaries would be the most memory that sampling ever takes.
    def empty(stage: Stage, batch: PromptBatch) -> SamplerState:
        return _laid(initial_state(config, options, settings, stage.trunk, batch, stops), mesh)

    def loop(state: SamplerState, stage: Stage, weights: Any, allowed: Any, number: int, P: int, end: int) -> Any:
        given = (state, stage, weights, allowed, stops, config, options, settings)
        return _laid(run_loop(*given, number=number, P=P, end=end, shards=shards), mesh)

    def grow(state: SamplerState, length: int) -> SamplerState:
        return _laid(grown(state, length), mesh)

    def end(state: SamplerState, stage: Stage, whole: Rollouts | None, number: int, P: int) -> tuple:
        last = number + 1 == stage_count(P, settings.group_size, settings, shards)
        whole, stage, state = end_stage(state, stage, whole, settings, number, P, shards)
        whole = jax.lax.with_sharding_constraint(whole, rollouts)
        return (whole, None, None) if last else (whole, _by_rows(stage, mesh), _laid(state, mesh))

    return StagedSampler(
        settings,
        jax.jit(begin),
        jax.jit(empty),
        jax.jit(loop, static_argnums=(4, 5, 6), donate_argnums=0),
        jax.jit(grow, static_argnums=1),
        jax.jit(end, static_argnums=(3, 4)),
    )


def sample_staged(
    sampler: StagedSampler, params: Params, batch: PromptBatch, allowed: Any, key: jax.Array, shards: int
) -> list[Rollouts]:
    """Give all programs to the devices at once; returns the rollouts as they are after every token loop."""
    settings, P = sampler.settings, batch.row_mask.shape[0]
    lengths = cache_lengths(settings)
    weights, stage = sampler.begin(params, batch, key)
    state = sampler.empty(stage, batch)
    found: list[Rollouts] = []
    for number in range(stage_count(P, settings.group_size, settings, shards)):
        for length, longer in itertools.pairwise(lengths) if number == 0 else ():
            state = sampler.grow(sampler.loop(state, stage, weights, allowed, number, P, length), longer)
        state = sampler.loop(state, stage, weights, allowed, number, P, lengths[-1])
        whole, stage, state = sampler.end(state, stage, found[-1] if found else None, number, P)
        found.append(whole)
    return found


def _by_rows(tree: Any, mesh: Mesh) -> Any:
    """Arrays whose first axis is split over the batch axes; a program that only makes them can not know it."""

    def one(x: jax.Array) -> jax.Array:
        spec = PartitionSpec(BATCH, *(PartitionSpec.UNCONSTRAINED,) * (x.ndim - 1)) if x.ndim else PartitionSpec()
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))

    return jax.tree.map(one, tree)


def _laid(state: SamplerState, mesh: Mesh) -> SamplerState:
    """The state by rows, its caches [P, G, K, R, D] also by key/value heads where `tensor` divides them."""

    def cache(x: jax.Array) -> jax.Array:
        heads = "tensor" if x.shape[2] % mesh.shape["tensor"] == 0 else None
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec(BATCH, None, heads)))

    state = _by_rows(state, mesh)
    return dataclasses.replace(state, caches=jax.tree.map(cache, state.caches))


__all__ = ["StagedSampler", "sample_staged", "staged_sampler"]
