"""The parts that are measured: prefill, decoding, a whole rollout, the update, and a whole GRPO step."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, PyTree

from infimmr_jax.bench import counts
from infimmr_jax.bench.timing import Timer
from infimmr_jax.bench.work import Size, Work, batch_of, encode, lognormal_limits, prompt_files
from infimmr_jax.config import ConfigError, GrpoSection, OptimizerSection
from infimmr_jax.model.trunk import Params
from infimmr_jax.names import JsonObject
from infimmr_jax.objectives.advantages import init_estimator_state
from infimmr_jax.objectives.schedules import Coefficients
from infimmr_jax.objectives.step import Rewards, UpdateSettings, grpo_update
from infimmr_jax.objectives.train_state import TrainState, make_optimizer
from infimmr_jax.preprocess.batching import PromptBatch
from infimmr_jax.rollout.sampler import sample, sample_branches
from infimmr_jax.rollout.state import Rollouts, SampleSettings
from infimmr_jax.rollout.vocabulary import response_texts

Sampled = tuple[Rollouts, jax.Array]
LEARNING_RATE = np.float32(1e-6)


@dataclasses.dataclass(frozen=True)
class Ask:
    """What a measurement may vary besides its size.

    `longest` > 0 gives responses log-normal lengths, the longest that many times their median. `repeated` computes the
    update with every prompt repeated for each of its responses, as other trainers do: groups of one, whose advantages
    are exactly 0, which changes none of the operations.
    """

    repeats: int = 5
    compactions: int = 0
    cache_sizes: int = 1
    longest: float = 0.0
    temperature: float = 1.0
    micro_batches: int = 1
    logprob_chunk: int | None = None
    repeated: bool = False
    seed: int = 0


def check(size: Size, ask: Ask) -> None:
    """Raise ConfigError for what can not be measured in this size."""
    if ask.longest:
        lognormal_limits(size, ask.longest, ask.seed)
    prompts = size.rows if ask.repeated else size.prompts
    if prompts % ask.micro_batches:
        raise ConfigError(
            f"--micro-batches {ask.micro_batches} can not cut {prompts} prompts into equal parts; give a number that "
            f"divides {prompts}"
        )


def prefill(work: Work, ask: Ask, timer: Timer) -> JsonObject:
    """Vision and prompts, once each."""
    program = timer.compile(work.model.trunk, *_inputs(work))
    flops = counts.prefill_flops(work.model.config, work.size, *_image(work))
    timer.time("prefill", lambda: program(*_inputs(work)), program, flops)
    return {"tokens_per_second": _rate(work.size.prompts * work.size.prompt_tokens, timer, "prefill")}


def decode(work: Work, ask: Ask, timer: Timer) -> JsonObject:
    """The token loop over a trunk that is there already."""
    settings, lengths = _settings(work, ask), _lengths(work, ask)
    trunk = jax.jit(work.model.trunk)(*_inputs(work))

    def run(
        params: Params, trunk: PyTree, batch: PromptBatch, allowed: PyTree, limits: PyTree, key: jax.Array
    ) -> Sampled:
        return sample_branches(params, work.model, settings, trunk, batch, allowed, key, limits)

    args = (work.params, trunk, work.batch, work.allowed, _limits(work, ask), jax.random.key(ask.seed))
    program = timer.compile(run, *args)
    flops = counts.branch_flops(work.model.config, work.size, lengths)
    moved = counts.decode_bytes(work.model.config, work.size, lengths, _width(work))
    rollouts, executed = timer.time("decode", lambda: program(*args), program, flops, moved)
    return {
        "tokens_per_second": _rate(rollouts.mask.sum(), timer, "decode"),
        "milliseconds_per_token": round(1000 * timer.seconds(timer.parts["decode"]) / work.size.new_tokens, 3),
        **_row_steps(rollouts, executed),
    }


def rollout(work: Work, ask: Ask, timer: Timer) -> JsonObject:
    """Prefill and token loop in one program, with the tokens fetched to the host."""
    program, args = _sampler(work, ask, timer)

    def call() -> Sampled:
        rollouts, executed = program(*args)
        jax.device_get((rollouts.tokens, rollouts.mask))
        return rollouts, executed

    rollouts, executed = timer.time("rollout", call, program, *_rollout_counts(work, ask))
    return {"tokens_per_second": _rate(rollouts.mask.sum(), timer, "rollout"), **_row_steps(rollouts, executed)}


def update(work: Work, ask: Ask, timer: Timer) -> JsonObject:
    """One optimiser step on a batch of full-length responses."""
    size = work.size
    batch, shape = work.batch, (size.prompts, size.group)
    if ask.repeated:
        batch = jax.tree.map(lambda x: jnp.repeat(x, size.group, axis=0), batch)
        shape = size.rows, 1
    rng = np.random.default_rng(ask.seed)
    tokens = jnp.asarray(rng.choice(np.flatnonzero(work.allowed), (*shape, size.new_tokens)), jnp.int32)
    numbers = jnp.zeros(tokens.shape, jnp.float32)
    rollouts = Rollouts(
        tokens=tokens,
        mask=jnp.ones(tokens.shape, bool),
        logprobs=numbers,
        behaviour=numbers,
        finished=jnp.zeros(shape, bool),
    )
    executed = jnp.asarray(tokens.size, jnp.int32)
    rewards = _rewards(rng.random(shape).astype(np.float32))
    state = _state(work)
    args = (state, batch, rollouts, executed, rewards, work.allowed, LEARNING_RATE, _NOTHING, jax.random.key(0))
    program = timer.compile(_update(work, ask), *args, donate=(0,))

    def call() -> PyTree:
        nonlocal state
        state, metrics = program(state, *args[1:])
        return metrics

    flops = counts.update_flops(work.model.config, size, _lengths(work, ask), *_image(work))
    timer.time("update", call, program, 0.0 if ask.repeated else flops)
    return {"tokens_per_second": _rate(size.rows * size.new_tokens, timer, "update"), "repeated_prompts": ask.repeated}


def step(work: Work, ask: Ask, timer: Timer) -> JsonObject:
    """Encode the prompts, sample, decode and grade the responses, update: one whole step, one part after the other.

    The reward is a fixed hash of the tokens; everything else a step needs is in it, as in the spans of other trainers.
    """
    sampler, args = _sampler(work, ask, timer)
    (rollouts, executed), state = sampler(*args), _state(work)
    rewards, files = _graded(work, rollouts), prompt_files(work.size, work.model, work.tokenizer)
    rest = (work.allowed, LEARNING_RATE, _NOTHING)
    updater = timer.compile(
        _update(work, ask), state, work.batch, rollouts, executed, rewards, *rest, jax.random.key(0), donate=(0,)
    )
    seen: dict[str, tuple[list[float], list[float]]] = {
        name: ([], []) for name in ("input", "rollout", "grade", "update", "step")
    }
    for number in range(ask.repeats + 1):
        marks = [_now()]
        prompts = [encode(text, file, work.model, work.tokenizer) for text, file in files]
        batch = batch_of(prompts, work.size, work.model)
        marks.append(_now())
        rollouts, executed = sampler(state.params, batch, *args[2:-1], jax.random.key(number))
        jax.device_get((rollouts.tokens, rollouts.mask))
        marks.append(_now())
        rewards = _graded(work, rollouts)
        marks.append(_now())
        state, metrics = updater(state, batch, rollouts, executed, rewards, *rest, jax.random.key(number))
        jax.block_until_ready((state, metrics))
        marks.append(_now())
        if number == 0:  # The warm-up.
            continue
        spans = {"input": (0, 1), "rollout": (1, 2), "grade": (2, 3), "update": (3, 4), "step": (0, 4)}
        for name, (first, last) in spans.items():
            for clock in (0, 1):
                seen[name][clock].append(marks[last][clock] - marks[first][clock])
    of_update = counts.update_flops(work.model.config, work.size, _lengths(work, ask), *_image(work))
    of_rollout, moved = _rollout_counts(work, ask)
    counted: dict[str, tuple] = {
        "rollout": (sampler, of_rollout, moved),
        "update": (updater, of_update),
        "step": (None, of_rollout + of_update),
    }
    for name, (wall, processor) in seen.items():
        timer.record(name, wall, processor, *counted.get(name, ()))
    return {"tokens_per_second": _rate(rollouts.mask.sum(), timer, "step"), **_row_steps(rollouts, executed)}


def hash_rewards(tokens: np.ndarray) -> np.ndarray:
    """A reward in [0, 1) of every response [.., R]: a fixed hash of its tokens, so that advantages are never 0."""
    return ((tokens.astype(np.int64) * (np.arange(tokens.shape[-1]) % 7 + 1)).sum(-1) % 97 / 97).astype(np.float32)


PARTS = {"prefill": prefill, "decode": decode, "rollout": rollout, "update": update, "step": step}
_ZERO: Any = np.float32(0)
_NOTHING = Coefficients(kl=_ZERO, entropy=_ZERO, perception=_ZERO)


def _inputs(work: Work) -> tuple[Params, PromptBatch]:
    return work.params, work.batch


def _settings(work: Work, ask: Ask) -> SampleSettings:
    return SampleSettings(
        group_size=work.size.group,
        max_response=work.size.new_tokens,
        temperature=ask.temperature,
        compactions=ask.compactions,
        cache_sizes=ask.cache_sizes,
    )


def _sampler(work: Work, ask: Ask, timer: Timer) -> tuple[Callable, tuple]:
    settings = _settings(work, ask)

    def run(params: Params, batch: PromptBatch, allowed: PyTree, limits: PyTree, key: jax.Array) -> Sampled:
        return sample(params, work.model, settings, batch, allowed, key, limits)

    args = (work.params, work.batch, work.allowed, _limits(work, ask), jax.random.key(ask.seed))
    return timer.compile(run, *args), args


def _limits(work: Work, ask: Ask) -> Int[np.ndarray, "P G"] | None:
    return lognormal_limits(work.size, ask.longest, ask.seed) if ask.longest else None


def _lengths(work: Work, ask: Ask) -> Int[np.ndarray, "P G"]:
    limits = _limits(work, ask)
    return np.full((work.size.prompts, work.size.group), work.size.new_tokens) if limits is None else limits


def _rollout_counts(work: Work, ask: Ask) -> tuple[float, float]:
    """Operations and bytes that prefill and decoding need."""
    given, lengths, width = (work.model.config, work.size), _lengths(work, ask), _width(work)
    flops = counts.prefill_flops(*given, *_image(work)) + counts.branch_flops(*given, lengths)
    return flops, counts.prefill_bytes(*given, width) + counts.decode_bytes(*given, lengths, width)


def _row_steps(rollouts: Rollouts, executed: jax.Array) -> JsonObject:
    useful, computed = int(rollouts.mask.sum()), int(executed)
    return {
        "useful_row_steps": useful,
        "executed_row_steps": computed,
        "efficiency": round(useful / computed, 4),
    }


def _graded(work: Work, rollouts: Rollouts) -> Rewards:
    """Rewards of the tokens; the texts, which a grader would read, are made all the same."""
    tokens = np.asarray(rollouts.tokens)
    response_texts(work.tokenizer, tokens, np.asarray(rollouts.mask))
    return _rewards(hash_rewards(tokens))


def _width(work: Work) -> int:
    return work.model.options.compute_dtype.itemsize


def _update(work: Work, ask: Ask) -> PyTree:
    grpo = GrpoSection(micro_batches=ask.micro_batches, logprob_chunk=ask.logprob_chunk)
    settings = UpdateSettings(work.model, grpo, (("hash", 1.0),), ask.temperature, ("math",))
    optimizer = make_optimizer(OptimizerSection())

    def run(*args: PyTree) -> PyTree:
        return grpo_update(*args, settings=settings, optimizer=optimizer)

    return run


def _state(work: Work) -> TrainState:
    params = jax.tree.map(jnp.copy, work.params)  # The state is donated; the work's own parameters stay.
    moments = make_optimizer(OptimizerSection()).init(params)
    return TrainState(jnp.zeros((), jnp.int32), params, moments, init_estimator_state(1))


def _rewards(total: np.ndarray) -> Rewards:
    prompts = total.shape[0]
    return Rewards(total, {"hash": total}, np.zeros(prompts, np.int32), np.ones(prompts, bool))


def _image(work: Work) -> tuple[int, int]:
    """Real patches and windows of one prompt's picture."""
    prompt = work.prompts[0]
    return sum(len(patches) for patches in prompt.patches), sum(slot.windows for slot in prompt.slots)


def _rate(tokens: PyTree, timer: Timer, name: str) -> float:
    return round(float(tokens) / timer.seconds(timer.parts[name]), 1)


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()
