"""The sampling loop: one jitted while-loop over tokens, caches passed in and out, prompts computed once per group."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from infimmr_jax.model.family import Model
from infimmr_jax.model.logprobs import log_distribution, scaled_logits
from infimmr_jax.model.trunk import BranchStart, LayerTrunk, Params, Trunk
from infimmr_jax.parallel.sequence import collected, dealt, shares_of, with_copies
from infimmr_jax.preprocess.batching import PromptBatch
from infimmr_jax.rollout.choosing import draw, entropy_of, penalise, top_gap, truncate
from infimmr_jax.rollout.compaction import compacted_shapes, first_places, fits, gather_branches, gather_prompts
from infimmr_jax.rollout.stages import StageSteps, cache_lengths, lengthen, next_stage, run_stages
from infimmr_jax.rollout.state import Rollouts, RowInputs, SamplerState, SampleSettings, Stage


def sample(
    params: Params,
    model: Model,
    settings: SampleSettings,
    batch: PromptBatch,
    allowed: Bool[Array, "V"],
    key: Array,
    limits: Int[Array, "P G"] | None = None,
    stops: Int[Array, "N T V"] | None = None,
    shards: int = 1,
) -> tuple[Rollouts, Int[Array, ""]]:
    """Sample a group of responses for every prompt of the batch.

    Every row has its own stream of random numbers, by its place in the batch and the token's place in the response:
    what a row samples does not depend on which other rows are still running, nor on where it is computed. `limits`
    are lengths that rows may not exceed (at most R). `stops` are automata that end a response
    (`vocabulary.stop_tables`). `shards` is the number of devices that P is spread over: each compacts its own rows.
    Also returns how many rows times steps were computed.
    """
    parts = shares_of(settings.group_size)
    trunk = model.trunk(params, batch).dealt(parts)
    if parts > 1:
        settings = dataclasses.replace(settings, group_size=settings.group_size // parts)
        rows = {name: with_copies(getattr(batch, name), parts) for name in ("tokens", "row_mask")}
        batch = dataclasses.replace(batch, **rows)
        limits = None if limits is None else dealt(limits, parts)
    shards *= parts
    sampled = sample_branches(params, model, settings, trunk, batch, allowed, key, limits, stops, shards)
    return collected(sampled, parts)


def sample_branches(
    params: Params,
    model: Model,
    settings: SampleSettings,
    trunk: Trunk,
    batch: PromptBatch,
    allowed: Bool[Array, "V"],
    key: Array,
    limits: Int[Array, "P G"] | None = None,
    stops: Int[Array, "N T V"] | None = None,
    shards: int = 1,
) -> tuple[Rollouts, Int[Array, ""]]:
    """Sample over a trunk that was computed from `batch`: `sample` after its prefill."""
    P = batch.row_mask.shape[0]

    def begin() -> tuple[Params, Stage, SamplerState]:
        weights, stage = begin_stages(params, model, settings, trunk, key, limits, shards)
        return weights, stage, initial_state(model, settings, trunk.start, batch, stops)

    def loop(state: SamplerState, stage: Stage, weights: Params, number: int, end: int) -> SamplerState:
        given = (state, stage, weights, allowed, stops, model, settings)
        return run_loop(*given, number=number, P=P, end=end, shards=shards)

    def end(state: SamplerState, stage: Stage, earlier: Rollouts | None, number: int) -> tuple:
        return next_stage(state, stage, earlier, settings, number, P, shards)

    steps = StageSteps(begin, loop, end, lengthen, gather_branches, gather_prompts)
    rollouts, executed = run_stages(steps, settings, P, shards)
    return rollouts[-1], executed


def begin_stages(
    params: Params,
    model: Model,
    settings: SampleSettings,
    trunk: Trunk,
    key: Array,
    limits: Int[Array, "P G"] | None = None,
    shards: int = 1,
) -> tuple[Params, Stage]:
    """Prepare what the first token loop needs beside its state: the decoder's weights and its rows."""
    P, G = trunk.start.bridge.shape[0], settings.group_size
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(P * G)).reshape(P, G)
    weights, kv = model.decode_inputs(params, trunk)
    return weights, Stage(first_places(P // shards, G, shards), RowInputs(keys, limits), trunk.start, kv)


def run_loop(
    state: SamplerState,
    stage: Stage,
    weights: Params,
    allowed: Bool[Array, "V"],
    stops: Int[Array, "N T V"] | None,
    model: Model,
    settings: SampleSettings,
    *,
    number: int,
    P: int,
    end: int,
    shards: int = 1,
) -> SamplerState:
    """Run the token loop of stage `number` of P prompts until slot `end`, or until its rows fit into the next shape."""
    prompts = P // shards
    shapes = compacted_shapes(prompts, settings.group_size, settings.compactions)

    def unfinished(state: SamplerState) -> Array:
        more = (state.slot < end) & ~jnp.all(state.done)
        if number == len(shapes):
            return more
        return more & ~fits(state.done, stage.places, prompts, shapes[number], shards)

    def step(state: SamplerState) -> SamplerState:
        return sample_step(weights, model, settings, stage.start, stage.kv, allowed, stage.inputs, stops, state)

    return jax.lax.while_loop(unfinished, step, state)


def initial_state(
    model: Model,
    settings: SampleSettings,
    start: BranchStart,
    batch: PromptBatch,
    stops: Int[Array, "N T V"] | None = None,
) -> SamplerState:
    """Make the state before the first token; rows of filler prompts count as done."""
    P, G, R = start.bridge.shape[0], settings.group_size, settings.max_response
    done = jnp.broadcast_to(~batch.row_mask[:, None], (P, G))

    def zeros() -> Array:
        return jnp.zeros((P, G, R), jnp.float32)

    rollouts = Rollouts(
        tokens=jnp.full((P, G, R), model.tokens.pad, jnp.int32),
        mask=jnp.zeros((P, G, R), bool),
        logprobs=zeros(),
        behaviour=zeros(),
        finished=jnp.zeros((P, G), bool),
        entropies=zeros() if settings.entropies else None,
        gaps=zeros() if settings.gaps else None,
    )
    seen = None
    if settings.repetition_penalty != 1.0:
        in_prompt = jnp.where(start.mask, batch.tokens, model.vocab_size)
        rows = jnp.arange(P)[:, None]
        of_prompt = jnp.zeros((P, model.vocab_size), bool).at[rows, in_prompt].set(True, mode="drop")
        of_prompt = of_prompt.at[jnp.arange(P), start.bridge].set(True)
        seen = jnp.broadcast_to(of_prompt[:, None], (P, G, model.vocab_size))
    return SamplerState(
        slot=jnp.zeros((), jnp.int32),
        last=jnp.broadcast_to(start.bridge[:, None], (P, G)).astype(jnp.int32),
        done=done,
        rollouts=rollouts,
        executed=jnp.zeros((), jnp.int32),
        caches=model.empty_caches(P, G, cache_lengths(settings)[0]),
        stops=None if stops is None else jnp.zeros((P, G, stops.shape[0]), jnp.int32),
        seen=seen,
    )


def sample_step(
    weights: Params,
    model: Model,
    settings: SampleSettings,
    start: BranchStart,
    kv: tuple[LayerTrunk, ...],
    allowed: Bool[Array, "V"],
    inputs: RowInputs,
    stops: Int[Array, "N T V"] | None,
    state: SamplerState,
) -> SamplerState:
    """Decode one token of every branch and record it where the branch was not done."""
    hidden, caches = model.decode(weights, start, kv, state.last, state.slot, state.caches)
    kernel = model.head_kernel(weights)
    temperature = settings.temperature or 1.0
    log_probs = log_distribution(hidden, kernel, allowed, temperature)
    drawn_from = log_probs
    if state.seen is not None:
        logits = scaled_logits(hidden, kernel, allowed, temperature)
        drawn_from = penalise(logits, state.seen, settings.repetition_penalty)
    drawn_from = truncate(drawn_from, settings.top_k, settings.top_p, settings.min_p)
    if settings.temperature == 0:
        token = jnp.argmax(drawn_from, axis=-1).astype(jnp.int32)
    else:
        token = draw(inputs.keys, state.slot, drawn_from)
    alive = ~state.done
    token = jnp.where(alive, token, model.tokens.pad)
    ended = alive & (token == model.tokens.eos)
    for other in model.tokens.other_ends:
        ended |= alive & (token == other)
    states = None
    if stops is not None and state.stops is not None:
        # NumPy tables, which the program holds as constants, can not be indexed by traced arrays.
        states = jnp.asarray(stops)[jnp.arange(stops.shape[0]), state.stops, token[..., None]].astype(jnp.int32)
        ended |= alive & jnp.any(states == stops.shape[1] - 1, axis=-1)
    done = state.done | ended
    if inputs.limits is not None:
        done |= state.slot + 1 >= inputs.limits
    old = state.rollouts

    def record(rows: Array, value: Array) -> Array:
        return jax.lax.dynamic_update_index_in_dim(rows, value.astype(rows.dtype), state.slot, axis=2)

    def of_token(scores: Array) -> Array:
        return jnp.where(alive, jnp.take_along_axis(scores, token[..., None], axis=-1)[..., 0], 0.0)

    rollouts = Rollouts(
        tokens=record(old.tokens, token),
        mask=record(old.mask, alive),
        logprobs=record(old.logprobs, of_token(log_probs)),
        behaviour=record(old.behaviour, of_token(drawn_from)),
        finished=old.finished | ended,
        entropies=None if old.entropies is None else record(old.entropies, alive * entropy_of(log_probs)),
        gaps=None if old.gaps is None else record(old.gaps, alive * top_gap(log_probs)),
    )
    seen = None
    if state.seen is not None:
        P, G = jnp.indices(token.shape)
        seen = state.seen.at[P, G, token].max(alive)
    executed = state.executed + token.size
    return SamplerState(state.slot + 1, token, done, rollouts, executed, caches, states, seen)
