"""The stages of sampling: caches that grow, and rows that move to smaller shapes when others have finished."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from infimmr_jax.rollout.compaction import (
    Moves,
    compacted_shapes,
    moved_bundles,
    moved_rows,
    next_places,
    put_back,
)
from infimmr_jax.rollout.state import Rollouts, SamplerState, SampleSettings, Stage


def stage_count(P: int, G: int, settings: SampleSettings, shards: int = 1) -> int:
    """How many shapes P prompts of G responses are sampled in: one more than they are compacted."""
    return len(compacted_shapes(P // shards, G, settings.compactions)) + 1


def end_stage(
    state: SamplerState,
    stage: Stage,
    whole: Rollouts | None,
    settings: SampleSettings,
    number: int,
    P: int,
    shards: int = 1,
) -> tuple[Rollouts, Stage, SamplerState]:
    """The rollouts of all P prompts with what the rows of stage `number` have got; stage and state in the next shape.

    `whole` are the rollouts after the stage before. Rows that are done are final in them. The last stage has no next
    shape and is returned as it is.
    """
    whole, following, moved, moves = next_stage(state, stage, whole, settings, number, P, shards)
    if moves is None:
        return whole, stage, state
    caches, kv = moved_rows(state.caches, moves), moved_bundles(stage.kv, moves)
    return whole, dataclasses.replace(following, kv=kv), dataclasses.replace(moved, caches=caches)


def next_stage(
    state: SamplerState,
    stage: Stage,
    whole: Rollouts | None,
    settings: SampleSettings,
    number: int,
    P: int,
    shards: int = 1,
) -> tuple[Rollouts, Stage, SamplerState, Moves | None]:
    """`end_stage` without any layer's keys and values, and how those move; no moves after the last stage.

    They are most of the memory: who moves them layer by layer never holds them twice.
    """
    prompts, G = P // shards, settings.group_size
    shapes = compacted_shapes(prompts, G, settings.compactions)
    here = state.rollouts
    whole = here if whole is None else put_back(whole, here, stage.places.home, shards)
    stage, state = dataclasses.replace(stage, kv=()), dataclasses.replace(state, caches=())
    if number == len(shapes):
        return whole, stage, state, None
    places, done, moves = next_places(state.done, stage.places, prompts, prompts * G, shapes[number], shards)
    rows = (state.last, here, state.stops, state.seen, stage.inputs)
    last, here, states, seen, inputs = moved_rows(rows, moves)
    state = SamplerState(state.slot, last, done, here, state.executed, (), states, seen)
    return whole, Stage(places, inputs, moved_bundles(stage.start, moves), ()), state, moves


def cache_lengths(settings: SampleSettings) -> tuple[int, ...]:
    """The sizes in tokens that a batch's cache grows through: even steps, the last is R."""
    R, count = settings.max_response, settings.cache_sizes
    return tuple(sorted({-(-R * (number + 1) // count) for number in range(count)}))


def grown(state: SamplerState, length: int) -> SamplerState:
    """The state with caches [P, G, K, R, D] that have room for `length` tokens."""
    return dataclasses.replace(state, caches=longer(state.caches, length))


def longer(caches: Any, length: int) -> Any:
    """A tree of caches [P, G, K, R, D] with room for `length` tokens."""
    return jax.tree.map(lambda x: jnp.pad(x, [(0, 0)] * 3 + [(0, length - x.shape[3]), (0, 0)]), caches)
