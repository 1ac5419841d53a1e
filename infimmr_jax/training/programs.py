"""The compiled programs of a run: initialisation, sampler, cold-start step, GRPO update; all under the mesh."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from infimmr_jax.config import OptimizerSection, PhaseSection
from infimmr_jax.grpo.advantages import init_estimator_state
from infimmr_jax.grpo.state import TrainState, make_optimizer, state_shardings
from infimmr_jax.grpo.step import Rewards, UpdateSettings, grpo_update, needs_reference
from infimmr_jax.model.hf import load_params
from infimmr_jax.model.qwen2_5_vl import init_params
from infimmr_jax.parallel.mesh import batch_divisor, batch_sharding, replicated, shard_batch
from infimmr_jax.preprocess.batching import PromptBatch
from infimmr_jax.rollout.sampler import Rollouts, SampleSettings, sample
from infimmr_jax.rollout.vocabulary import stop_tables
from infimmr_jax.training.setup import Setup
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


class Programs:
    """The jitted functions of a run. Each call puts this host's rows on the devices and returns device arrays."""

    def __init__(self, setup: Setup):
        self.setup = setup
        self._allowed = jax.device_put(jnp.asarray(setup.allowed), replicated(setup.mesh))
        self._samplers: dict[SampleSettings, Callable] = {}
        self._shardings = state_shardings(self.abstract_state(), setup.mesh)

    @functools.cached_property
    def task_names(self) -> tuple[str, ...]:
        """Answer types by number: the tasks of estimators that keep statistics per task."""
        return ("math", "choice", "string")

    def _optimizer(self, section: OptimizerSection) -> optax.GradientTransformation:
        return make_optimizer(section)

    def _fresh(self, params: Any) -> TrainState:
        config = self.setup.config
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            moments=self._optimizer(config.optimizer).init(params),
            estimator=init_estimator_state(len(self.task_names)),
            reference=jax.tree.map(jnp.copy, params) if needs_reference(config.grpo) else None,
        )

    def abstract_state(self) -> TrainState:
        """Shapes and dtypes of the whole state."""
        setup = self.setup
        return jax.eval_shape(lambda: self._fresh(init_params(jax.random.key(0), setup.model, setup.options)))

    def restore_target(self) -> TrainState:
        """Shapes, dtypes and shardings that a checkpoint is restored into."""
        return jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), self.abstract_state(), self._shardings
        )

    def start(self) -> TrainState:
        """The first state: parameters of the given model, or random ones, each made on the devices that hold it."""
        setup = self.setup
        if setup.config.model.path is not None:
            params = load_params(setup.config.model.path, setup.model, setup.options, setup.mesh)
        else:
            make = jax.jit(
                lambda key: init_params(key, setup.model, setup.options), out_shardings=self._shardings.params
            )
            params = make(jax.random.key(setup.config.seed))
        return self.begin_phases(params)

    def begin_phases(self, params: Any) -> TrainState:
        """A fresh optimiser (and reference policy) around `params`, which are handed over."""
        return jax.jit(self._fresh, out_shardings=self._shardings, donate_argnums=0)(params)

    def sample(self, params: Any, batch: PromptBatch, settings: SampleSettings, key: jax.Array) -> Rollouts:
        """Responses to this host's prompts (as part of the global batch)."""
        setup = self.setup
        if settings not in self._samplers:
            stops, shards = self._stops(settings.stop), batch_divisor(setup.mesh)
            rows: Any = batch_sharding(setup.mesh)
            shardings = Rollouts(rows, rows, rows, rows, rows, executed=cast(Any, replicated(setup.mesh)))
            self._samplers[settings] = jax.jit(
                lambda params, batch, allowed, key: sample(
                    params, setup.model, setup.options, settings, batch, allowed, key, None, stops, shards
                ),
                out_shardings=shardings,
            )
        return self._samplers[settings](params, shard_batch(batch, setup.mesh), self._allowed, key)

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
        return self._sft(state, shard_batch(batch, self.setup.mesh), self._allowed, jnp.float32(rate))

    @functools.cached_property
    def _sft(self) -> Callable:
        setup = self.setup
        optimizer = self._optimizer(setup.config.optimizer)
        chunk = setup.config.grpo.logprob_chunk

        def step(state: TrainState, batch: SftBatch, allowed: Any, rate: Any) -> tuple[TrainState, dict]:
            return sft_step(state, batch, allowed, rate, setup.model, setup.options, optimizer, chunk)

        return jax.jit(step, donate_argnums=0, out_shardings=(self._shardings, replicated(setup.mesh)))

    def update(
        self, state: TrainState, batch: PromptBatch, rollouts: Rollouts, rewards: Rewards, rate: float, step: int
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """All GRPO updates on the batch of a step; `state` is donated."""
        batch, rewards = shard_batch((batch, rewards), self.setup.mesh)
        key = jax.random.fold_in(jax.random.key(self.setup.config.seed + 1), step)
        numbers = (jnp.float32(rate), jnp.int32(step))
        return self._update(state, batch, rollouts, rewards, self._allowed, *numbers, key)

    @functools.cached_property
    def _update(self) -> Callable:
        optimizer = self._optimizer(self.setup.config.optimizer)
        update = functools.partial(grpo_update, settings=self.update_settings(), optimizer=optimizer)
        return jax.jit(update, donate_argnums=0, out_shardings=(self._shardings, replicated(self.setup.mesh)))

    def update_settings(self) -> UpdateSettings:
        """The static settings of the GRPO update."""
        config = self.setup.config
        return UpdateSettings(
            model=self.setup.model,
            options=self.setup.options,
            grpo=config.grpo,
            reward_weights=tuple(sorted(config.reward.weights.items())),
            temperature=config.rollout.temperature,
            total_steps=self.setup.curriculum.total_steps,
            task_names=self.task_names,
        )

    def phase_settings(self, phase: PhaseSection) -> SampleSettings:
        """How a phase samples."""
        rollout = self.setup.config.rollout
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
            cache_sizes=rollout.cache_sizes_for(phase.max_response),
        )


def tasks_of(problems: list, task_names: tuple[str, ...]) -> np.ndarray:
    """The number of each problem's task."""
    return np.asarray([task_names.index(problem.answer_type) for problem in problems], np.int32)
