"""The compiled programs of a run: initialisation, sampler, cold-start step, GRPO update; all under the mesh."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import PyTree

from infimmr_jax.config import OptimizerSection, PhaseSection, RunConfig, SftPhaseSection, TrainableSection
from infimmr_jax.model.family import Model
from infimmr_jax.model.hf import load_params
from infimmr_jax.names import ANSWER_TYPES
from infimmr_jax.objectives.advantages import init_estimator_state
from infimmr_jax.objectives.schedules import Clock, coefficients, without_rates, without_schedules
from infimmr_jax.objectives.step import Rewards, UpdateSettings, grpo_update, needs_reference
from infimmr_jax.objectives.supervised import SftBatch, sft_step
from infimmr_jax.objectives.train_state import TrainState, make_optimizer, state_shardings
from infimmr_jax.objectives.trainable import learning_factors, moves, thaws
from infimmr_jax.parallel.mesh import axis_size, batch_divisor, batch_sharding, replicated, shard_batch
from infimmr_jax.preprocess.batching import PromptBatch
from infimmr_jax.preprocess.packing import PackedBatch
from infimmr_jax.rollout.sampler import sample
from infimmr_jax.rollout.staged import StagedSampler, sample_staged, staged_sampler
from infimmr_jax.rollout.stages import stage_count
from infimmr_jax.rollout.state import Rollouts, SampleSettings
from infimmr_jax.rollout.vocabulary import stop_tables


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


@runtime_checkable
class Recipe(Protocol):
    """What the programs of a run depend on: no data, no tokenizer, so that they can be planned without a run."""

    @property
    def config(self) -> RunConfig: ...
    @property
    def mesh(self) -> Mesh: ...
    @property
    def model(self) -> Model: ...
    @property
    def allowed(self) -> np.ndarray: ...


class Programs:
    """The jitted functions of a run. Each call puts this host's rows on the devices and returns device arrays.

    `sampler` and `updater` give the functions themselves, to be lowered for devices that are not here.
    """

    def __init__(self, setup: Recipe):
        self.setup = setup
        self._samplers: dict[SampleSettings, Callable] = {}
        self._staged: dict[SampleSettings, StagedSampler] = {}
        self._updaters: dict[tuple, Callable] = {}
        self._supervisors: dict[TrainableSection, Callable] = {}
        self.shardings = state_shardings(self.abstract_state(), setup.mesh)

    @functools.cached_property
    def _allowed(self) -> jax.Array:
        return jax.device_put(jnp.asarray(self.setup.allowed), replicated(self.setup.mesh))

    def _mesh(self) -> PyTree:
        """The mesh while a program is traced: kernels and sharding constraints inside the model name its axes."""
        return jax.set_mesh(self.setup.mesh)

    @functools.cached_property
    def task_names(self) -> tuple[str, ...]:
        """Answer types by number: the tasks of estimators that keep statistics per task."""
        return ANSWER_TYPES

    def _optimizer(self, section: OptimizerSection) -> optax.GradientTransformation:
        return make_optimizer(section, self._ever_moving)

    @functools.cached_property
    def _ever_moving(self) -> PyTree:
        """Whether each parameter moves at any time of the run; the others need no moments."""
        config, params = self.setup.config, self.setup.model.abstract_params()
        sections = [phase.trainable for phase in config.phases] + [config.trainable] * (config.sft is not None)
        factors = [learning_factors(params, section) for section in dict.fromkeys(sections)]
        return jax.tree.map(lambda *parts: any(moves(part) for part in parts), *factors)

    def _fresh(self, params: PyTree) -> TrainState:
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
        return any(needs_reference(phase.grpo) for phase in self.setup.config.grpo_phases)

    def abstract_state(self) -> TrainState:
        """Shapes and dtypes of the whole state."""
        return jax.eval_shape(lambda: self._fresh(self.setup.model.init(jax.random.key(0))))

    def restore_target(self) -> TrainState:
        """Shapes, dtypes and shardings that a checkpoint is restored into."""
        return jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), self.abstract_state(), self.shardings
        )

    def start(self) -> TrainState:
        """The first state: parameters of the given model, or random ones, each made on the devices that hold it."""
        setup = self.setup
        if setup.config.model.path is not None:
            params = load_params(setup.config.model.path, setup.model, setup.mesh)
        else:
            params = jax.jit(setup.model.init, out_shardings=self.shardings.params)(jax.random.key(setup.config.seed))
        return self.fresh(params)

    def fresh(self, params: PyTree) -> TrainState:
        """A fresh optimiser (and reference policy) around `params`, which are handed over."""
        return jax.jit(self._fresh, out_shardings=self.shardings, donate_argnums=0)(params)

    def with_fresh_moments(self, state: TrainState) -> TrainState:
        """The state with moments that start from zero; donates."""

        def begun(state: TrainState) -> TrainState:
            return dataclasses.replace(state, moments=self._optimizer(self.setup.config.optimizer).init(state.params))

        return jax.jit(begun, out_shardings=self.shardings, donate_argnums=0)(state)

    def begin_phase(self, state: TrainState, index: int, fresh: bool = False) -> TrainState:
        """What the start of a phase changes: fresh moments, a reference policy that is the present one; donates.

        `index` counts GRPO phases; `fresh` asks for fresh moments whatever the phase says.
        """
        phases = self.setup.config.grpo_phases
        if index == 0:
            return state
        before, phase = phases[index - 1], phases[index]
        params = self.setup.model.abstract_params()
        thawed = thaws(learning_factors(params, before.trainable), learning_factors(params, phase.trainable))
        earlier = [other.grpo.kl.reference for other in phases[:index] if needs_reference(other.grpo)]
        wanted = phase.grpo.kl.reference
        refers = needs_reference(phase.grpo) and (
            wanted == "phase_start" or (wanted == "ema" and earlier[-1:] != ["ema"])
        )
        fresh = fresh or phase.optimizer.fresh or thawed
        if not fresh and not refers:
            return state

        def begun(state: TrainState) -> TrainState:
            moments = self._optimizer(phase.optimizer).init(state.params) if fresh else state.moments
            reference = jax.tree.map(jnp.copy, state.params) if refers else state.reference
            return dataclasses.replace(state, moments=moments, reference=reference)

        return jax.jit(begun, out_shardings=self.shardings, donate_argnums=0)(state)

    def sample(self, params: PyTree, batch: PromptBatch, settings: SampleSettings, key: jax.Array) -> Rollouts:
        """Responses to this host's prompts (as part of the global batch)."""
        with self._mesh():
            return self.sampler(settings)(params, shard_batch(batch, self.setup.mesh), self._allowed, key)[0]

    def sampler(self, settings: SampleSettings) -> Callable:
        """The jitted sampler: (params, batch, allowed, key) -> (Rollouts, executed)."""
        setup = self.setup
        if settings not in self._samplers:
            stops, shards = self._stops(settings.stop), batch_divisor(setup.mesh)
            self._samplers[settings] = jax.jit(
                lambda params, batch, allowed, key: sample(
                    params, setup.model, settings, batch, allowed, key, None, stops, shards
                ),
                out_shardings=(batch_sharding(setup.mesh), replicated(setup.mesh)),
            )
        return self._samplers[settings]

    def sample_in_stages(
        self, params: PyTree, batch: PromptBatch, settings: SampleSettings, key: jax.Array
    ) -> tuple[list[Rollouts], jax.Array]:
        """What `sample` returns as the last of a list; before it the rollouts as they are at every compaction.

        Each token loop is a program of its own, and all are given to the devices at once: while later ones run, the
        responses that earlier ones have finished can be fetched and graded. Also returns how many rows times steps
        were computed.
        """
        setup, shards = self.setup, batch_divisor(self.setup.mesh)
        placed = shard_batch(batch, setup.mesh)
        count = stage_count(placed.row_mask.shape[0], settings.group_size, settings, shards)
        with self._mesh():
            # Groups that are dealt out over `sequence` are sampled by one program.
            if count == 1 or axis_size(setup.mesh, "sequence") > 1:
                rollouts, executed = self.sampler(settings)(params, placed, self._allowed, key)
                return [rollouts], executed
            return sample_staged(self.staged(settings), params, placed, self._allowed, key, shards)

    def staged(self, settings: SampleSettings) -> StagedSampler:
        """The jitted programs of a sampler in stages."""
        if settings not in self._staged:
            setup, stops = self.setup, self._stops(settings.stop)
            self._staged[settings] = staged_sampler(
                setup.model, settings, stops, setup.mesh, batch_sharding(setup.mesh)
            )
        return self._staged[settings]

    def _stops(self, texts: tuple[str, ...]) -> PyTree:
        """The automata of the texts that end a response; of a planned run, without tokenizer, only their shape."""
        if not texts:
            return None
        vocabulary, tokenizer = self.setup.model.vocab_size, getattr(self.setup, "tokenizer", None)
        if tokenizer is None:
            return np.zeros((len(texts), max(len(text.encode()) for text in texts) + 1, vocabulary), np.int16)
        return stop_tables(tokenizer, texts, vocabulary)

    def supervise(
        self, state: TrainState, batch: SftBatch | PackedBatch, rate: float, number: int = 0
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """One supervised step on a batch of the set of demonstrations `number`; `state` is donated."""
        section = self.setup.config.demonstrations[number]
        trainable = section.trainable if isinstance(section, SftPhaseSection) else self.setup.config.trainable
        with self._mesh():
            step = self._supervised(trainable)
            return step(state, shard_batch(batch, self.setup.mesh), self._allowed, jnp.float32(rate))

    def _supervised(self, trainable: TrainableSection) -> Callable:
        if trainable in self._supervisors:
            return self._supervisors[trainable]
        setup = self.setup
        optimizer = self._optimizer(setup.config.optimizer)
        chunk = setup.config.grpo.chunk_for(setup.model.vocab_size)

        def step(
            state: TrainState, batch: SftBatch | PackedBatch, allowed: PyTree, rate: PyTree
        ) -> tuple[TrainState, dict]:
            return sft_step(state, batch, allowed, rate, setup.model, optimizer, chunk, trainable)

        self._supervisors[trainable] = jax.jit(
            step, donate_argnums=0, out_shardings=(self.shardings, replicated(setup.mesh))
        )
        return self._supervisors[trainable]

    def update(
        self,
        state: TrainState,
        batch: PromptBatch,
        rollouts: Rollouts,
        executed: jax.Array | np.ndarray,
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
            executed = jax.device_put(np.asarray(executed, np.int32), replicated(self.setup.mesh))
            rollouts = shard_batch(rollouts, self.setup.mesh)
        key = jax.random.fold_in(jax.random.key(self.setup.config.seed + 1), clock.step)
        scheduled = jax.tree.map(np.float32, coefficients(phase.grpo, clock))
        with self._mesh():
            settings = self._allowed, np.float32(rate), scheduled, key
            return self.updater(phase)(state, batch, rollouts, executed, rewards, *settings)

    def updater(self, phase: PhaseSection) -> Callable:
        """The jitted `grpo_update`: (state, batch, .., coefficients, key) -> (state, metrics).

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
            grpo=without_schedules(phase.grpo),
            reward_weights=tuple(sorted(phase.reward.weights.items())),
            temperature=phase.rollout.temperature,
            task_names=self.task_names,
            trainable=phase.trainable,
        )

    def phase_settings(self, phase: PhaseSection) -> SampleSettings:
        """How a phase samples."""
        return SampleSettings.of(phase.rollout, phase.group_size, phase.max_response)


def tasks_of(problems: list, task_names: tuple[str, ...]) -> np.ndarray:
    """The number of each problem's task."""
    return np.asarray([task_names.index(problem.answer_type) for problem in problems], np.int32)
