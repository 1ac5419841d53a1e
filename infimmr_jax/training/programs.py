"""The compiled programs of a run: initialisation, sampler, cold-start step, GRPO update; all under the mesh."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Protocol, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from infimmr_jax.config import OptimizerSection, PhaseSection, RunConfig
from infimmr_jax.data.records import ANSWER_TYPES
from infimmr_jax.grpo.advantages import init_estimator_state
from infimmr_jax.grpo.schedules import Clock, coefficients, without_rates, without_schedules
from infimmr_jax.grpo.state import TrainState, make_optimizer, state_shardings
from infimmr_jax.grpo.step import Rewards, UpdateSettings, grpo_update, needs_reference
from infimmr_jax.grpo.trainable import learning_factors, moves, thaws
from infimmr_jax.model.config import ModelConfig
from infimmr_jax.model.hf import load_params
from infimmr_jax.model.options import ModelOptions
from infimmr_jax.model.qwen2_5_vl import abstract_params, init_params, trunk_forward
from infimmr_jax.parallel.mesh import axis_size, batch_divisor, batch_sharding, replicated, shard_batch
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
    run_loop,
    sample,
    stage_count,
)
from infimmr_jax.rollout.vocabulary import stop_tables
from infimmr_jax.training.sft import SftBatch, sft_step


class Compilations:
    """Counts the programs XLA compiles from now on, and the seconds it takes (also reading one from the cache)."""

    EVENT = "/jax/core/compile/backend_compile_duration"

    def __init__(self) -> None:
        self.count, self.seconds = 0, 0.0
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def _listen(self, event: str, duration_secs: float, **_: str | int) -> None:
        if event == self.EVENT:
            self.count += 1
            self.seconds += duration_secs


class Recipe(Protocol):
    """What the programs of a run depend on: no data, no tokenizer, so that they can be planned without a run."""

    @property
    def config(self) -> RunConfig: ...
    @property
    def mesh(self) -> Mesh: ...
    @property
    def model(self) -> ModelConfig: ...
    @property
    def options(self) -> ModelOptions: ...
    @property
    def allowed(self) -> np.ndarray: ...


class Programs:
    """The jitted functions of a run. Each call puts this host's rows on the devices and returns device arrays.

    `sampler` and `updater` give the functions themselves, to be lowered for devices that are not here.
    """

    def __init__(self, setup: Recipe):
        self.setup = setup
        self._samplers: dict[SampleSettings, Callable] = {}
        self._staged: dict[SampleSettings, tuple[Callable, Callable, Callable, Callable]] = {}
        self._updaters: dict[tuple, Callable] = {}
        self.shardings = state_shardings(self.abstract_state(), setup.mesh)

    @functools.cached_property
    def _allowed(self) -> jax.Array:
        return jax.device_put(jnp.asarray(self.setup.allowed), replicated(self.setup.mesh))

    def _mesh(self) -> Any:
        """The mesh while a program is traced: kernels and sharding constraints inside the model name its axes."""
        return jax.set_mesh(self.setup.mesh)

    @functools.cached_property
    def task_names(self) -> tuple[str, ...]:
        """Answer types by number: the tasks of estimators that keep statistics per task."""
        return ANSWER_TYPES

    def _optimizer(self, section: OptimizerSection) -> optax.GradientTransformation:
        return make_optimizer(section, self._ever_moving)

    @functools.cached_property
    def _ever_moving(self) -> Any:
        """Whether each parameter moves at any time of the run; the others need no moments."""
        config, params = self.setup.config, abstract_params(self.setup.model, self.setup.options)
        sections = [phase.trainable for phase in config.phases] + [config.trainable] * (config.sft is not None)
        factors = [learning_factors(params, section) for section in dict.fromkeys(sections)]
        return jax.tree.map(lambda *parts: any(moves(part) for part in parts), *factors)

    def _fresh(self, params: Any) -> TrainState:
        config = self.setup.config
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            moments=self._optimizer(config.optimizer).init(params),
            estimator=init_estimator_state(len(self.task_names)),
            reference=jax.tree.map(jnp.copy, params) if self._keeps_reference else None,
        )

    @property
    def _keeps_reference(self) -> bool:
        return any(needs_reference(phase.grpo) for phase in self.setup.config.phases)

    def abstract_state(self) -> TrainState:
        """Shapes and dtypes of the whole state."""
        setup = self.setup
        return jax.eval_shape(lambda: self._fresh(init_params(jax.random.key(0), setup.model, setup.options)))

    def restore_target(self) -> TrainState:
        """Shapes, dtypes and shardings that a checkpoint is restored into."""
        return jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), self.abstract_state(), self.shardings
        )

    def start(self) -> TrainState:
        """The first state: parameters of the given model, or random ones, each made on the devices that hold it."""
        setup = self.setup
        if setup.config.model.path is not None:
            params = load_params(setup.config.model.path, setup.model, setup.options, setup.mesh)
        else:
            make = jax.jit(
                lambda key: init_params(key, setup.model, setup.options), out_shardings=self.shardings.params
            )
            params = make(jax.random.key(setup.config.seed))
        return self.begin_phases(params)

    def begin_phases(self, params: Any) -> TrainState:
        """A fresh optimiser (and reference policy) around `params`, which are handed over."""
        return jax.jit(self._fresh, out_shardings=self.shardings, donate_argnums=0)(params)

    def begin_phase(self, state: TrainState, index: int) -> TrainState:
        """What the start of a phase changes: fresh moments, a reference policy that is the present one; donates."""
        phases = self.setup.config.phases
        if index == 0:
            return state
        before, phase = phases[index - 1], phases[index]
        params = abstract_params(self.setup.model, self.setup.options)
        thawed = thaws(learning_factors(params, before.trainable), learning_factors(params, phase.trainable))
        earlier = [other.grpo.kl.reference for other in phases[:index] if needs_reference(other.grpo)]
        wanted = phase.grpo.kl.reference
        refers = needs_reference(phase.grpo) and (
            wanted == "phase_start" or (wanted == "ema" and earlier[-1:] != ["ema"])
        )
        fresh = phase.optimizer.fresh or thawed
        if not fresh and not refers:
            return state

        def begun(state: TrainState) -> TrainState:
            moments = self._optimizer(phase.optimizer).init(state.params) if fresh else state.moments
            reference = jax.tree.map(jnp.copy, state.params) if refers else state.reference
            return dataclasses.replace(state, moments=moments, reference=reference)

        return jax.jit(begun, out_shardings=self.shardings, donate_argnums=0)(state)

    def sample(self, params: Any, batch: PromptBatch, settings: SampleSettings, key: jax.Array) -> Rollouts:
        """Responses to this host's prompts (as part of the global batch)."""
        with self._mesh():
            return self.sampler(settings)(params, shard_batch(batch, self.setup.mesh), self._allowed, key)

    def sampler(self, settings: SampleSettings) -> Callable:
        """The jitted sampler: (params, batch, allowed, key) -> Rollouts."""
        setup = self.setup
        if settings not in self._samplers:
            stops, shards = self._stops(settings.stop), batch_divisor(setup.mesh)
            self._samplers[settings] = jax.jit(
                lambda params, batch, allowed, key: sample(
                    params, setup.model, setup.options, settings, batch, allowed, key, None, stops, shards
                ),
                out_shardings=self._rollout_shardings,
            )
        return self._samplers[settings]

    @functools.cached_property
    def _rollout_shardings(self) -> Rollouts:
        rows: Any = batch_sharding(self.setup.mesh)
        return Rollouts(rows, rows, rows, rows, rows, executed=cast(Any, replicated(self.setup.mesh)))

    def sample_in_stages(
        self, params: Any, batch: PromptBatch, settings: SampleSettings, key: jax.Array
    ) -> list[Rollouts]:
        """What `sample` returns as the last of a list; before it the rollouts as they are at every compaction.

        Each token loop is a program of its own, and all are given to the devices at once: while later ones run, the
        responses that earlier ones have finished can be fetched and graded.
        """
        mesh, R = self.setup.mesh, settings.max_response
        placed, shards = shard_batch(batch, mesh), batch_divisor(mesh)
        P = placed.row_mask.shape[0]
        count = stage_count(P, settings.group_size, settings, shards)
        with self._mesh():
            # Groups that are dealt out over `sequence` are sampled by one program.
            if count == 1 or axis_size(mesh, "sequence") > 1:
                return [self.sampler(settings)(params, placed, self._allowed, key)]
            begin, loop, grow, end = self._stages(settings)
            weights, stage, state = begin(params, placed, key)
            found: list[Rollouts] = []
            for number in range(count):
                for length in cache_lengths(settings)[:-1] if number == 0 else ():
                    longer = min(other for other in cache_lengths(settings) if other > length)
                    state = grow(loop(state, stage, weights, self._allowed, number, P, length), longer)
                state = loop(state, stage, weights, self._allowed, number, P, R)
                whole, stage, state = end(state, stage, found[-1] if found else None, number, P)
                found.append(whole)
        return found

    def _stages(self, settings: SampleSettings) -> tuple[Callable, Callable, Callable, Callable]:
        """The programs of a sampler in stages: prefill, token loop, growth of caches, compaction.

        Loops work in place; where shapes change, nothing could be taken over.
        """
        if settings in self._staged:
            return self._staged[settings]
        setup, shards, stops = self.setup, batch_divisor(self.setup.mesh), self._stops(settings.stop)
        model, options = setup.model, setup.options

        def begin(params: Any, batch: PromptBatch, key: jax.Array) -> tuple:
            trunk = trunk_forward(params, model, options, batch)
            return begin_stages(params, model, options, settings, trunk, batch, key, None, stops, shards)

        def loop(state: Any, stage: Stage, weights: Any, allowed: Any, number: int, P: int, end: int) -> SamplerState:
            given = (state, stage, weights, allowed, stops, model, options, settings)
            return run_loop(*given, number=number, P=P, end=end, shards=shards)

        def end(state: Any, stage: Stage, whole: Rollouts | None, number: int, P: int) -> tuple:
            last = number + 1 == stage_count(P, settings.group_size, settings, shards)
            whole, *after = end_stage(state, stage, whole, settings, number, P, shards)
            whole = jax.lax.with_sharding_constraint(whole, self._rollout_shardings)
            return (whole, None, None) if last else (whole, *after)

        self._staged[settings] = (
            jax.jit(begin),
            jax.jit(loop, static_argnums=(4, 5, 6), donate_argnums=0),
            jax.jit(grown, static_argnums=1),
            jax.jit(end, static_argnums=(3, 4)),
        )
        return self._staged[settings]

    def _stops(self, texts: tuple[str, ...]) -> Any:
        """The automata of the texts that end a response; of a planned run, without tokenizer, only their shape."""
        if not texts:
            return None
        vocabulary, tokenizer = self.setup.model.text.vocab_size, getattr(self.setup, "tokenizer", None)
        if tokenizer is None:
            return np.zeros((len(texts), max(len(text.encode()) for text in texts) + 1, vocabulary), np.int16)
        return stop_tables(tokenizer, texts, vocabulary)

    def cold_start(self, state: TrainState, batch: SftBatch, rate: float) -> tuple[TrainState, dict[str, jax.Array]]:
        """One supervised step; `state` is donated."""
        with self._mesh():
            return self._sft(state, shard_batch(batch, self.setup.mesh), self._allowed, jnp.float32(rate))

    @functools.cached_property
    def _sft(self) -> Callable:
        setup = self.setup
        optimizer = self._optimizer(setup.config.optimizer)
        chunk = setup.config.grpo.chunk_for(setup.model.text.vocab_size)

        def step(state: TrainState, batch: SftBatch, allowed: Any, rate: Any) -> tuple[TrainState, dict]:
            trainable = setup.config.trainable
            return sft_step(state, batch, allowed, rate, setup.model, setup.options, optimizer, chunk, trainable)

        return jax.jit(step, donate_argnums=0, out_shardings=(self.shardings, replicated(setup.mesh)))

    def update(
        self,
        state: TrainState,
        batch: PromptBatch,
        rollouts: Rollouts,
        rewards: Rewards,
        phase: PhaseSection,
        rate: float,
        clock: Clock,
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """All GRPO updates on the batch of a phase's step; `state` is donated.

        `rollouts` are the sampler's, or this host's rows of rollouts as NumPy arrays.
        """
        batch, rewards = shard_batch((batch, rewards), self.setup.mesh)
        if isinstance(rollouts.tokens, np.ndarray):
            executed = jax.device_put(np.asarray(rollouts.executed, np.int32), replicated(self.setup.mesh))
            nothing: Any = None
            rows = shard_batch(dataclasses.replace(rollouts, executed=nothing), self.setup.mesh)
            rollouts = dataclasses.replace(rows, executed=executed)
        key = jax.random.fold_in(jax.random.key(self.setup.config.seed + 1), clock.step)
        scheduled = jax.tree.map(np.float32, coefficients(phase.grpo, clock))
        with self._mesh():
            return self.updater(phase)(state, batch, rollouts, rewards, self._allowed, np.float32(rate), scheduled, key)

    def updater(self, phase: PhaseSection) -> Callable:
        """The jitted update: (state, batch, rollouts, rewards, allowed, rate, coefficients, key) -> (state, metrics).

        Phases that differ only in what is given with every step, rates and coefficients, share one.
        """
        settings, section = self.update_settings(phase), without_rates(phase.optimizer)
        if (settings, section) not in self._updaters:
            update = functools.partial(grpo_update, settings=settings, optimizer=self._optimizer(section))
            self._updaters[settings, section] = jax.jit(
                update, donate_argnums=0, out_shardings=(self.shardings, replicated(self.setup.mesh))
            )
        return self._updaters[settings, section]

    def update_settings(self, phase: PhaseSection) -> UpdateSettings:
        """The static settings of a phase's GRPO update."""
        return UpdateSettings(
            model=self.setup.model,
            options=self.setup.options,
            grpo=without_schedules(phase.grpo),
            reward_weights=tuple(sorted(phase.reward.weights.items())),
            temperature=phase.rollout.temperature,
            task_names=self.task_names,
            trainable=phase.trainable,
        )

    def phase_settings(self, phase: PhaseSection) -> SampleSettings:
        """How a phase samples."""
        rollout = phase.rollout
        return SampleSettings(
            group_size=phase.group_size,
            max_response=phase.max_response,
            temperature=rollout.temperature,
            top_k=rollout.top_k,
            top_p=rollout.top_p,
            min_p=rollout.min_p,
            repetition_penalty=rollout.repetition_penalty,
            stop=rollout.stop,
            compactions=rollout.compactions_for(phase.max_response),
            cache_sizes=rollout.cache_sizes,
        )


def tasks_of(problems: list, task_names: tuple[str, ...]) -> np.ndarray:
    """The number of each problem's task."""
    return np.asarray([task_names.index(problem.answer_type) for problem in problems], np.int32)
