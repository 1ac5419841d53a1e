"""Supervised stages: one optimiser step a batch of demonstrations."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import grain
import jax

from infimmr_jax.config import StageSpec
from infimmr_jax.names import JsonObject
from infimmr_jax.objectives.train_state import TrainState
from infimmr_jax.training.demonstration_batches import dataset, supervised_rate
from infimmr_jax.training.place import Memory
from infimmr_jax.training.stage import Batches, Judgement, Measure, Pending, StageInputs


@dataclasses.dataclass(frozen=True)
class SftStage:
    """A stage of supervised steps on its set of demonstrations."""

    inputs: StageInputs
    spec: StageSpec

    def begin(self, state: TrainState) -> TrainState:
        """Fresh moments, unless the run or the same demonstrations just began; donates `state`."""
        if self.spec.part or not self.spec.after:
            return state
        return self.inputs.programs.with_fresh_moments(state)

    def batches(self, step: int, data: JsonObject | None) -> Batches:
        """Batches of demonstrations from step `step` of the stage on."""
        section = self.inputs.setup.config.data
        options = grain.ReadOptions(num_threads=section.threads, prefetch_buffer_size=section.prefetch)
        batches = iter(dataset(self.inputs.setup.demonstrations[self.spec.number]).to_iter_dataset(options))
        batches.set_state(data or {"next_index": self.spec.first + step})
        return batches

    def step(
        self, state: TrainState, batches: Batches, step: int, meanwhile: Callable[[], float]
    ) -> tuple[TrainState, Pending]:
        """One optimiser step on the next batch; donates `state`."""
        inputs, spec = self.inputs, self.spec
        demonstrations = inputs.setup.config.demonstrations[spec.number]
        began = time.monotonic()
        batch = next(batches)
        waited = time.monotonic() - began
        rate = supervised_rate(spec.first + step, demonstrations)
        state, metrics = inputs.programs.supervise(state, batch, rate, spec.number)
        updated = time.monotonic()
        began = max(began, meanwhile())
        inputs.agree()
        row = {
            "kind": "sft",
            "phase": spec.name,
            "phase_index": spec.part,
            "step": self._steps_before + spec.first + step,
            "step_in_phase": step,
            "optimizer/learning_rate": rate,
            "time/input_wait": waited,
            "compile/count": inputs.compilations.count,
            "compile/seconds": inputs.compilations.seconds,
        }
        tokens = float(batch.mask.sum()) * jax.process_count()
        return state, Pending(row, metrics, lambda: (batch, {}), began, max(began, updated), tokens)

    @property
    def _steps_before(self) -> int:
        """Supervised steps of earlier sets of demonstrations."""
        sets = self.inputs.setup.config.demonstrations[: self.spec.number]
        return sum(stage.steps for one in sets for stage in one.stages)

    def judge(self, pending: Pending, step: int, memory: Memory, measure: Measure) -> Judgement:
        """Supervised stages make all their steps."""
        return Judgement(memory)
