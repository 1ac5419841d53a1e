"""The sampler as programs of its own for each token loop, so that the host can read what is finished in between."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from infimmr_jax.model.family import Model
from infimmr_jax.model.trunk import LayerCache, Params
from infimmr_jax.parallel.mesh import BATCH, batch_divisor
from infimmr_jax.preprocess.batching import PromptBatch
from infimmr_jax.rollout.compaction import Moves, gather_branches, gather_prompts
from infimmr_jax.rollout.sampler import begin_stages, initial_state, run_loop
from infimmr_jax.rollout.stages import StageSteps, lengthen, next_stage, run_stages
from infimmr_jax.rollout.state import Rollouts, SamplerState, SampleSettings, Stage


@dataclasses.dataclass(frozen=True)
class StagedSampler:
    """The jitted programs: prefill, the state before the first token, token loop, end of a stage, and what moves the
    keys and values of a layer: growth and compaction of its cache, compaction of its prompts. Loops work in place.
    """

    settings: SampleSettings
    begin: Callable
    empty: Callable
    loop: Callable
    end: Callable
    grow: Callable
    move_rows: Callable
    move_prompts: Callable


def staged_sampler(
    model: Model, settings: SampleSettings, stops: PyTree, mesh: Mesh, rollouts: NamedSharding
) -> StagedSampler:
    """Compile the programs of a sampler on a mesh; `rollouts` is the sharding of all arrays of Rollouts."""
    shards = batch_divisor(mesh)

    def begin(params: Params, batch: PromptBatch, key: jax.Array) -> tuple:
        trunk = model.trunk(params, batch)
        weights, stage = begin_stages(params, model, settings, trunk, key, None, shards)
        return weights, _by_rows(stage, mesh)

    # Not made by the prefill: empty caches beside its temporaries would be the most memory that sampling ever takes.
    def empty(stage: Stage, batch: PromptBatch) -> SamplerState:
        return _constrain(initial_state(model, settings, stage.start, batch, stops), mesh)

    def loop(
        state: SamplerState, stage: Stage, weights: PyTree, allowed: PyTree, number: int, P: int, end: int
    ) -> PyTree:
        given = (state, stage, weights, allowed, stops, model, settings)
        return _constrain(run_loop(*given, number=number, P=P, end=end, shards=shards), mesh)

    def end(state: SamplerState, stage: Stage, earlier: Rollouts | None, number: int, P: int) -> tuple:
        merged, stage, state, moves = next_stage(state, stage, earlier, settings, number, P, shards)
        return jax.lax.with_sharding_constraint(merged, rollouts), *_by_rows((stage, state, moves), mesh)

    def grow(layer: LayerCache, length: int) -> tuple[jax.Array, jax.Array]:
        return _by_heads(lengthen(layer, length), mesh)

    def move_rows(layer: LayerCache, moves: Moves) -> tuple[jax.Array, jax.Array]:
        return _by_heads(gather_branches(layer, moves), mesh)

    def move_prompts(layer: PyTree, moves: Moves) -> PyTree:
        return _by_rows(gather_prompts(layer, moves), mesh)

    return StagedSampler(
        settings,
        jax.jit(begin),
        jax.jit(empty),
        jax.jit(loop, static_argnums=(4, 5, 6), donate_argnums=0),
        jax.jit(end, static_argnums=(3, 4)),
        jax.jit(grow, static_argnums=1),
        jax.jit(move_rows),
        jax.jit(move_prompts),
    )


def sample_staged(
    sampler: StagedSampler, params: Params, batch: PromptBatch, allowed: PyTree, key: jax.Array, shards: int
) -> tuple[list[Rollouts], jax.Array]:
    """Give all programs to the devices at once; return the rollouts after every stage, and the executed rows."""
    settings, P = sampler.settings, batch.row_mask.shape[0]

    # The driver alone holds stage and state, so that the memory of what has moved is free.
    def begin() -> tuple[Params, Stage, SamplerState]:
        weights, stage = sampler.begin(params, batch, key)
        return weights, stage, sampler.empty(stage, batch)

    def loop(state: SamplerState, stage: Stage, weights: Params, number: int, end: int) -> SamplerState:
        return sampler.loop(state, stage, weights, allowed, number, P, end)

    def end(state: SamplerState, stage: Stage, earlier: Rollouts | None, number: int) -> tuple:
        return sampler.end(state, stage, earlier, number, P)

    steps = StageSteps(begin, loop, end, sampler.grow, sampler.move_rows, sampler.move_prompts)
    return run_stages(steps, settings, P, shards)


def _by_rows(tree: PyTree, mesh: Mesh) -> PyTree:
    """Split the first axis of arrays over the batch axes; a program that only makes them can not know it."""

    def one(x: jax.Array) -> jax.Array:
        spec = PartitionSpec(BATCH, *(PartitionSpec.UNCONSTRAINED,) * (x.ndim - 1)) if x.ndim else PartitionSpec()
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))

    return jax.tree.map(one, tree)


def _constrain(state: SamplerState, mesh: Mesh) -> SamplerState:
    """Split the state by rows, its caches also by heads."""
    state = _by_rows(state, mesh)
    return dataclasses.replace(state, caches=_by_heads(state.caches, mesh))


def _by_heads(caches: PyTree, mesh: Mesh) -> PyTree:
    """Split caches [P, G, K, R, D] by rows, and by key/value heads where `tensor` divides them."""

    def one(x: jax.Array) -> jax.Array:
        heads = "tensor" if x.shape[2] % mesh.shape["tensor"] == 0 else None
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec(BATCH, None, heads)))

    return jax.tree.map(one, caches)


__all__ = ["StagedSampler", "sample_staged", "staged_sampler"]
