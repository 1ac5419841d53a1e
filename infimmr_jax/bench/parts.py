"""The parts that are measured: prefill, decoding, a whole rollout, the update, and a whole GRPO step."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from infimmr_jax.bench import counts
from infimmr_jax.bench.timing import Timer
from infimmr_jax.bench.work import Work, lognormal_limits
from infimmr_jax.config import GrpoSection, OptimizerSection
from infimmr_jax.grpo.advantages import init_estimator_state
from infimmr_jax.grpo.schedules import Coefficients
from infimmr_jax.grpo.state import TrainState, make_optimizer
from infimmr_jax.grpo.step import Rewards, UpdateSettings, grpo_update
from infimmr_jax.model.qwen2_5_vl import Params, trunk_forward
from infimmr_jax.preprocess.batching import PromptBatch
from infimmr_jax.rollout.sampler import Rollouts, SampleSettings, sample, sample_branches

LEARNING_RATE = np.float32(1e-6)


@dataclasses.dataclass(frozen=True)
class Ask:
    """What a measurement may vary besides its size.

    `longest` > 0 gives responses log-normal lengths, the longest that many times their median. `repeated` computes the
    update with every prompt repeated for each of its responses, as other trainers do.
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


def prefill(work: Work, ask: Ask, timer: Timer) -> dict[str, Any]:
    """Vision and prompts, once each."""
    program = timer.compile(
        lambda params, batch: trunk_forward(params, work.config, work.options, batch), *_inputs(work)
    )
    flops = counts.prefill_flops(work.config, work.size, *_image(work))
    timer.time("prefill", lambda: program(*_inputs(work)), program, flops)
    return {"tokens_per_second": _rate(work.size.prompts * work.size.prompt_tokens, timer, "prefill")}


def decode(work: Work, ask: Ask, timer: Timer) -> dict[str, Any]:
    """The token loop over a trunk that is there already."""
    settings = _settings(work, ask)
    trunk = jax.jit(lambda params, batch: trunk_forward(params, work.config, work.options, batch))(*_inputs(work))

    def run(params: Params, trunk: Any, batch: PromptBatch, allowed: Any, key: jax.Array) -> Rollouts:
        return sample_branches(params, work.config, work.options, settings, trunk, batch, allowed, key)

    args = (work.params, trunk, work.batch, work.allowed, jax.random.key(ask.seed))
    program = timer.compile(run, *args)
    timer.time("decode", lambda: program(*args), program, counts.branch_flops(work.config, work.size))
    moved = counts.decode_bytes(work.config, work.size, work.options.compute_dtype.itemsize)
    seconds = timer.seconds(timer.parts["decode"])
    timer.parts["decode"]["gbyte_per_second"] = round(moved / 1e9 / seconds, 2)
    return {
        "tokens_per_second": _rate(work.size.rows * work.size.new_tokens, timer, "decode"),
        "milliseconds_per_token": round(1000 * seconds / work.size.new_tokens, 3),
    }


def rollout(work: Work, ask: Ask, timer: Timer) -> dict[str, Any]:
    """Prefill and token loop in one program, with the tokens fetched to the host."""
    program, args = _sampler(work, ask, timer)
    flops = counts.branch_flops(work.config, work.size) + counts.prefill_flops(work.config, work.size, *_image(work))

    def call() -> Rollouts:
        rollouts = program(*args)
        jax.device_get((rollouts.tokens, rollouts.mask))
        return rollouts

    rollouts = timer.time("rollout", call, program, 0.0 if ask.longest else flops)
    useful = int(rollouts.mask.sum())
    return {
        "tokens_per_second": _rate(useful, timer, "rollout"),
        "useful_row_steps": useful,
        "executed_row_steps": int(rollouts.executed),
        "efficiency": round(useful / int(rollouts.executed), 4),
    }


def update(work: Work, ask: Ask, timer: Timer) -> dict[str, Any]:
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
        executed=jnp.asarray(tokens.size, jnp.int32),
    )
    rewards = _rewards(rng.random(shape).astype(np.float32))
    state = _state(work)
    args = (state, batch, rollouts, rewards, work.allowed, LEARNING_RATE, _NOTHING, jax.random.key(0))
    program = timer.compile(_update(work, ask), *args, donate=(0,))

    def call() -> Any:
        nonlocal state
        state, metrics = program(state, *args[1:])
        return metrics

    flops = counts.update_flops(work.config, size, *_image(work))
    timer.time("update", call, program, 0.0 if ask.repeated else flops)
    return {"tokens_per_second": _rate(size.rows * size.new_tokens, timer, "update"), "repeated_prompts": ask.repeated}


def step(work: Work, ask: Ask, timer: Timer) -> dict[str, Any]:
    """Sample, grade by a fixed hash of the tokens, update: one whole step, which waits only for the tokens."""
    sampler, args = _sampler(work, ask, timer)
    rollouts, state = sampler(*args), _state(work)
    rewards = _rewards(hash_rewards(np.asarray(rollouts.tokens)))
    rest = (work.allowed, LEARNING_RATE, _NOTHING)
    updater = timer.compile(
        _update(work, ask), state, work.batch, rollouts, rewards, *rest, jax.random.key(0), donate=(0,)
    )
    seen: dict[str, tuple[list[float], list[float]]] = {
        name: ([], []) for name in ("rollout", "grade", "update", "step")
    }
    for number in range(ask.repeats + 1):
        marks = [_now()]
        rollouts = sampler(state.params, *args[1:-1], jax.random.key(number))
        tokens = np.asarray(rollouts.tokens)
        marks.append(_now())
        rewards = _rewards(hash_rewards(tokens))
        marks.append(_now())
        state, metrics = updater(state, work.batch, rollouts, rewards, *rest, jax.random.key(number))
        jax.block_until_ready((state, metrics))
        marks.append(_now())
        if number == 0:  # The warm-up.
            continue
        spans = {"rollout": (0, 1), "grade": (1, 2), "update": (2, 3), "step": (0, 3)}
        for name, (first, last) in spans.items():
            for clock in (0, 1):
                seen[name][clock].append(marks[last][clock] - marks[first][clock])
    image = _image(work)
    flops = {
        "rollout": counts.prefill_flops(work.config, work.size, *image) + counts.branch_flops(work.config, work.size),
        "update": counts.update_flops(work.config, work.size, *image),
    }
    flops["step"] = flops["rollout"] + flops["update"]
    programs = {"rollout": sampler, "update": updater}
    for name, (wall, processor) in seen.items():
        timer.record(name, wall, processor, programs.get(name), flops.get(name, 0.0))
    return {"tokens_per_second": _rate(work.size.rows * work.size.new_tokens, timer, "step")}


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


def _sampler(work: Work, ask: Ask, timer: Timer) -> tuple[Any, tuple]:
    settings = _settings(work, ask)
    limits = lognormal_limits(work.size, ask.longest, ask.seed) if ask.longest else None

    def run(params: Params, batch: PromptBatch, allowed: Any, limits: Any, key: jax.Array) -> Rollouts:
        return sample(params, work.config, work.options, settings, batch, allowed, key, limits)

    args = (work.params, work.batch, work.allowed, limits, jax.random.key(ask.seed))
    return timer.compile(run, *args), args


def _update(work: Work, ask: Ask) -> Any:
    grpo = GrpoSection(micro_batches=ask.micro_batches, logprob_chunk=ask.logprob_chunk)
    settings = UpdateSettings(work.config, work.options, grpo, (("hash", 1.0),), ask.temperature, ("math",))
    optimizer = make_optimizer(OptimizerSection())

    def run(*args: Any) -> Any:
        return grpo_update(*args, settings=settings, optimizer=optimizer)

    return run


def _state(work: Work) -> TrainState:
    params = jax.tree.map(jnp.copy, work.params)  # The state is donated; the work's own parameters stay.
    moments = make_optimizer(OptimizerSection()).init(params)
    return TrainState(jnp.zeros((), jnp.int32), params, moments, init_estimator_state(1))


def _rewards(total: np.ndarray) -> Rewards:
    return Rewards(total, {"hash": total}, np.zeros(total.shape[0], np.int32))


def _image(work: Work) -> tuple[int, int]:
    """Real patches and windows of one prompt's picture."""
    prompt = work.prompts[0]
    return sum(len(patches) for patches in prompt.patches), sum(slot.windows for slot in prompt.slots)


def _rate(tokens: float, timer: Timer, name: str) -> float:
    return round(tokens / timer.seconds(timer.parts[name]), 1)


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()
