"""The stages of sampling: caches that grow, and rows that move to smaller shapes when others have finished."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from infimmr_jax.model.trunk import LayerCache, Params
from infimmr_jax.rollout.compaction import (
    Moves,
    compacted_shapes,
    gather_branches,
    gather_prompts,
    next_places,
    put_back,
)
from infimmr_jax.rollout.state import Rollouts, SamplerState, SampleSettings, Stage


def stage_count(P: int, G: int, settings: SampleSettings, shards: int = 1) -> int:
    """Count the shapes that P prompts of G responses are sampled in: one more than they are compacted."""
    return len(compacted_shapes(P // shards, G, settings.compactions)) + 1


@dataclasses.dataclass(frozen=True)
class StageSteps:
    """What the driver calls: plain functions where one program samples, jitted ones where each is its own program.

    `begin()` gives the loops' weights, the first stage and the state before the first token. `loop(state, stage,
    weights, number, end)` runs a token loop, `end(state, stage, rollouts, number)` is `next_stage`. `grow`, `move_rows`
    and `move_prompts` bring one layer's cache, or its keys and values of the prompts, into the next shape.
    """

    begin: Callable[[], tuple[Params, Stage, SamplerState]]
    loop: Callable[[SamplerState, Stage, Params, int, int], SamplerState]
    end: Callable[[SamplerState, Stage, Rollouts | None, int], tuple[Rollouts, Stage, SamplerState, Moves | None]]
    grow: Callable[[LayerCache, int], LayerCache]
    move_rows: Callable[[LayerCache, Moves], LayerCache]
    move_prompts: Callable[[LayerCache, Moves], LayerCache]


def run_stages(
    steps: StageSteps, settings: SampleSettings, P: int, shards: int = 1
) -> tuple[list[Rollouts], Int[Array, ""]]:
    """Drive all token loops of P prompts; give all rollouts as they are after every stage, and the executed rows.

    Where shapes change nothing can be taken over in place, so layers move one by one: caches are most of the memory,
    and are never there twice.
    """
    lengths = cache_lengths(settings)
    weights, stage, state = steps.begin()
    rollouts: list[Rollouts] = []
    for number in range(stage_count(P, settings.group_size, settings, shards)):
        for length, following in itertools.pairwise(lengths) if number == 0 else ():
            state = steps.loop(state, stage, weights, number, length)
            state, caches = dataclasses.replace(state, caches=()), list(state.caches)
            state = dataclasses.replace(state, caches=_layer_by_layer(caches, steps.grow, following))
        state = steps.loop(state, stage, weights, number, lengths[-1])
        state, caches = dataclasses.replace(state, caches=()), list(state.caches)
        stage, kv = dataclasses.replace(stage, kv=()), list(stage.kv)
        merged, stage, state, moves = steps.end(state, stage, rollouts[-1] if rollouts else None, number)
        rollouts.append(merged)
        if moves is not None:
            state = dataclasses.replace(state, caches=_layer_by_layer(caches, steps.move_rows, moves))
            stage = dataclasses.replace(stage, kv=_layer_by_layer(kv, steps.move_prompts, moves))
    return rollouts, state.executed


def _layer_by_layer(
    layers: list[tuple[Array, Array]], move: Callable[..., tuple[Array, Array]], how: int | Moves
) -> tuple:
    """Move every layer; the list gives up each as its turn comes, so that its memory is free for the next."""
    layers.reverse()
    return tuple(move(layers.pop(), how) for _ in range(len(layers)))


def next_stage(
    state: SamplerState,
    stage: Stage,
    earlier: Rollouts | None,
    settings: SampleSettings,
    number: int,
    P: int,
    shards: int = 1,
) -> tuple[Rollouts, Stage, SamplerState, Moves | None]:
    """Merge what the rows of stage `number` have got into the rollouts of all P prompts; give the rest its next shape.

    `earlier` are the rollouts after the stage before; rows that are done are final in them. Stage and state come
    without any layer's keys and values, and with how those move; there are no moves after the last stage.
    """
    prompts, G = P // shards, settings.group_size
    shapes = compacted_shapes(prompts, G, settings.compactions)
    rows = state.rollouts
    merged = rows if earlier is None else put_back(earlier, rows, stage.places.home, shards)
    stage, state = dataclasses.replace(stage, kv=()), dataclasses.replace(state, caches=())
    if number == len(shapes):
        return merged, stage, state, None
    places, done, moves = next_places(state.done, stage.places, prompts, prompts * G, shapes[number], shards)
    carried = (state.last, rows, state.stops, state.seen, stage.inputs)
    last, rows, states, seen, inputs = gather_branches(carried, moves)
    state = SamplerState(state.slot, last, done, rows, state.executed, (), states, seen)
    return merged, Stage(places, inputs, gather_prompts(stage.start, moves), ()), state, moves


def cache_lengths(settings: SampleSettings) -> tuple[int, ...]:
    """List the sizes in tokens that a batch's cache grows through: even steps, the last is R."""
    R, count = settings.max_response, settings.cache_sizes
    return tuple(sorted({-(-R * (number + 1) // count) for number in range(count)}))


def lengthen(layer: LayerCache, length: int) -> tuple[Array, Array]:
    """Pad a layer's cache [P, G, K, R, D] to `length` tokens."""
    return jax.tree.map(lambda x: jnp.pad(x, [(0, 0)] * 3 + [(0, length - x.shape[3]), (0, 0)]), layer)
