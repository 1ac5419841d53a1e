"""The sampling loop: one jitted while-loop over tokens, caches passed in and out, prompts computed once per group."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from infimmr_jax.model import decoder
from infimmr_jax.model.config import ModelConfig
from infimmr_jax.model.decoder import LayerCache, Trunk
from infimmr_jax.model.logprobs import NEVER, log_distribution
from infimmr_jax.model.options import ModelOptions
from infimmr_jax.model.qwen2_5_vl import Params, trunk_forward
from infimmr_jax.preprocess.batching import PromptBatch


@dataclasses.dataclass(frozen=True)
class SampleSettings:
    """Static settings of a sampler: G responses of at most R tokens a prompt; temperature 0 is greedy."""

    group_size: int
    max_response: int
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0


@struct.dataclass
class Rollouts:
    """Sampled responses of P prompts x G.

    `mask` is True on sampled tokens, the end token included. `logprobs` are of the policy at the sampling temperature
    over allowed tokens (what the trainer computes again); `behaviour` are of the distribution really drawn from (after
    top-k and top-p). `executed` counts the steps of the loop.
    """

    tokens: Int[Array, "P G R"]
    mask: Bool[Array, "P G R"]
    logprobs: Float[Array, "P G R"]
    behaviour: Float[Array, "P G R"]
    finished: Bool[Array, "P G"]
    executed: Int[Array, ""]

    @property
    def lengths(self) -> Int[Array, "P G"]:
        return self.mask.sum(-1)


@struct.dataclass
class SamplerState:
    """Carry of the token loop."""

    slot: Int[Array, ""]
    last: Int[Array, "P G"]
    done: Bool[Array, "P G"]
    rollouts: Rollouts
    caches: tuple[LayerCache, ...]


def sample(
    params: Params,
    config: ModelConfig,
    options: ModelOptions,
    settings: SampleSettings,
    batch: PromptBatch,
    allowed: Bool[Array, "V"],
    key: Array,
) -> Rollouts:
    """Sample a group of responses for every prompt of the batch.

    Every row has its own stream of random numbers, by its place in the batch and the token's place in the response:
    what a row samples does not depend on which other rows are still running.
    """
    trunk = trunk_forward(params, config, options, batch)
    state = initial_state(config, options, settings, trunk, batch.row_mask)
    P, G = state.last.shape
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(P * G)).reshape(P, G)

    def unfinished(state: SamplerState) -> Array:
        return (state.slot < settings.max_response) & ~jnp.all(state.done)

    def step(state: SamplerState) -> SamplerState:
        return sample_step(params, config, options, settings, trunk, allowed, keys, state)

    return jax.lax.while_loop(unfinished, step, state).rollouts


def initial_state(
    config: ModelConfig, options: ModelOptions, settings: SampleSettings, trunk: Trunk, row_mask: Bool[Array, "P"]
) -> SamplerState:
    """The state before the first token; rows of filler prompts count as done."""
    P, G, R = trunk.bridge.shape[0], settings.group_size, settings.max_response
    done = jnp.broadcast_to(~row_mask[:, None], (P, G))
    rollouts = Rollouts(
        tokens=jnp.full((P, G, R), config.tokens.pad, jnp.int32),
        mask=jnp.zeros((P, G, R), bool),
        logprobs=jnp.zeros((P, G, R), jnp.float32),
        behaviour=jnp.zeros((P, G, R), jnp.float32),
        finished=jnp.zeros((P, G), bool),
        executed=jnp.zeros((), jnp.int32),
    )
    return SamplerState(
        slot=jnp.zeros((), jnp.int32),
        last=jnp.broadcast_to(trunk.bridge[:, None], (P, G)).astype(jnp.int32),
        done=done,
        rollouts=rollouts,
        caches=decoder.empty_caches(config.text, P, G, R, options.compute_dtype),
    )


def sample_step(
    params: Params,
    config: ModelConfig,
    options: ModelOptions,
    settings: SampleSettings,
    trunk: Trunk,
    allowed: Bool[Array, "V"],
    keys: Array,
    state: SamplerState,
) -> SamplerState:
    """Decode one token of every branch and record it where the branch was not done."""
    hidden, caches = decoder.decode_layers(
        params["decoder"], config.text, options, trunk, state.last, state.slot, state.caches
    )
    kernel = decoder.head_kernel(params["decoder"], config.text)
    log_probs = log_distribution(hidden, kernel, allowed, settings.temperature or 1.0)
    drawn_from = truncate(log_probs, settings.top_k, settings.top_p)
    if settings.temperature == 0:
        token = jnp.argmax(log_probs, axis=-1).astype(jnp.int32)
    else:
        token = draw(keys, state.slot, drawn_from)
    alive = ~state.done
    token = jnp.where(alive, token, config.tokens.pad)
    ended = alive & (token == config.tokens.eos)
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
        executed=old.executed + 1,
    )
    return SamplerState(slot=state.slot + 1, last=token, done=state.done | ended, rollouts=rollouts, caches=caches)


def truncate(log_probs: Float[Array, "*lead V"], top_k: int, top_p: float) -> Float[Array, "*lead V"]:
    """Renormalised log-probabilities of the top-k tokens and of the smallest set of tokens whose mass reaches top_p."""
    if top_k == 0 and top_p == 1.0:
        return log_probs
    ranked = -jnp.sort(-log_probs, axis=-1)
    floor = ranked[..., min(top_k, ranked.shape[-1]) - 1] if top_k else ranked[..., -1]
    if top_p < 1.0:
        before = jnp.cumsum(jnp.exp(ranked), axis=-1) - jnp.exp(ranked)
        kept = jnp.sum(before < top_p, axis=-1)
        floor = jnp.maximum(floor, jnp.take_along_axis(ranked, kept[..., None] - 1, axis=-1)[..., 0])
    kept_only = jnp.where(log_probs >= floor[..., None], log_probs, NEVER)
    return jax.nn.log_softmax(kept_only, axis=-1)


def draw(keys: Array, slot: Int[Array, ""], log_probs: Float[Array, "P G V"]) -> Int[Array, "P G"]:
    """One categorical sample per row by inversion: a single uniform number a row and token."""
    P, G, V = log_probs.shape
    rows = jax.vmap(jax.random.fold_in, (0, None))(keys.reshape(-1), slot)
    uniform = jax.vmap(lambda key: jax.random.uniform(key))(rows).reshape(P, G, 1)
    mass = jnp.cumsum(jnp.exp(log_probs), axis=-1)
    # Scaling by the last entry keeps the draw inside the support although float sums miss 1 by a little.
    token = jnp.sum(mass <= uniform * mass[..., -1:], axis=-1)
    last_allowed = V - 1 - jnp.argmax(jnp.flip(log_probs, -1) > NEVER / 2, axis=-1)
    return jnp.minimum(token, last_allowed).astype(jnp.int32)
