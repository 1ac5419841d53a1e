"""GRPO stages: sample groups, grade them, update; and look whether the phase has done its work."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import PyTree

from infimmr_jax.config import PhaseSection, StageSpec
from infimmr_jax.data.curriculum import iterate
from infimmr_jax.names import JsonObject, Modality
from infimmr_jax.objectives.schedules import Clock, learning_rate_at
from infimmr_jax.objectives.train_state import TrainState
from infimmr_jax.training.groups import Groups, collect
from infimmr_jax.training.histograms import histograms
from infimmr_jax.training.place import Memory
from infimmr_jax.training.promotion import extend_history, promotion_due
from infimmr_jax.training.scoring import transcript
from infimmr_jax.training.stage import Batches, Judgement, Measure, Pending, StageInputs


@dataclasses.dataclass(frozen=True)
class GrpoStage:
    """A phase of the curriculum of problems.

    Steps are counted over the curriculum as it is planned: a phase that ends early leaves out the rest of its numbers.
    """

    inputs: StageInputs
    spec: StageSpec

    @property
    def phase(self) -> PhaseSection:
        """The section that describes it."""
        return self.inputs.setup.curriculum.phases[self.spec.number]

    def begin(self, state: TrainState) -> TrainState:
        """Fresh moments and a reference policy where the phase asks for them; donates `state`."""
        programs = self.inputs.programs
        if self.spec.number == 0:
            return programs.fresh(state.params) if self.spec.after else state
        return programs.begin_phase(state, self.spec.number, fresh=self.spec.after != "grpo")

    def batches(self, step: int, data: JsonObject | None) -> Batches:
        """Batches of problems from step `step` of the phase on.

        Where steps draw several batches and the iterator's state is not known, those that `step` steps may have drawn
        are passed over.
        """
        curriculum, section = self.inputs.setup.curriculum, self.inputs.setup.config.data
        first = curriculum.first_draw(self.spec.number) + step * self.phase.rollout.draws.at_most
        batches = iterate(curriculum, first, section.threads, section.prefetch)
        if data is not None:
            batches.set_state(data)
        return batches

    def step(
        self, state: TrainState, batches: Batches, step: int, meanwhile: Callable[[], float]
    ) -> tuple[TrainState, Pending]:
        """Sample, grade, and begin the update; the transcripts are written while the devices compute it."""
        inputs, phase = self.inputs, self.phase
        clock = Clock(self.spec.first + step, inputs.setup.curriculum.total_steps, step, phase.steps)
        key = jax.random.fold_in(jax.random.key(inputs.setup.config.seed), clock.step)
        groups, drawing = collect(inputs, state.params, batches, phase, key, clock.step, meanwhile)
        updated = time.monotonic()
        rate = learning_rate_at(phase.optimizer, clock)
        state, metrics = inputs.programs.update(
            state, groups.step.batch, groups.rollouts, groups.executed, groups.rewards, phase, rate, clock
        )
        self._write_transcripts(groups)
        counted = {f"grading/{name}": count for name, count in groups.scores.counters.items()}
        if groups.bad:
            counted["grading/bad_rewards"] = len(groups.bad)
        spread = histograms(
            np.asarray(groups.local.lengths), groups.scores.total, phase.max_response, inputs.setup.share
        )

        def evidence() -> tuple[PyTree, JsonObject]:
            words = {"problems": [problem.id for problem in groups.step.problems], "responses": groups.texts}
            return {"batch": groups.step.batch, "rollouts": groups.local, "rewards": groups.rewards}, words

        row = {
            "kind": "grpo",
            "phase": phase.name,
            "phase_index": groups.step.phase_index,
            "step": clock.step,
            "step_in_phase": step,
            "optimizer/learning_rate": rate,
            **counted,
            **drawing,
            **spread,
            "time/input_wait": groups.seconds.input,
            "time/rollout": groups.seconds.rollout,
            "time/grade": groups.seconds.grade,
            "compile/count": inputs.compilations.count,
            "compile/seconds": inputs.compilations.seconds,
        }
        return state, Pending(row, metrics, evidence, groups.seconds.began, updated)

    def judge(self, pending: Pending, step: int, memory: Memory, measure: Measure) -> Judgement:
        """Decide whether the phase ends, and measure held-out problems when that is due."""
        phase = self.phase
        memory = dataclasses.replace(
            memory, recent=extend_history(memory.recent, pending.row, pending.read, phase.promotion)
        )
        ended, numbers = promotion_due(phase, step, memory.recent, measure, self.inputs.setup.evaluation)
        heldout = self._heldout(self.spec.first + step, measure)
        numbers |= {f"heldout/{modality}": found["accuracy"] for modality, found in heldout.items()}
        if heldout:
            numbers["time/heldout"] = sum(found["time/evaluation"] for found in heldout.values())
        if ended and step + 1 < phase.steps:
            facts = ", ".join(
                f"{name.split('/')[1]} {value:,.{0 if value >= 1000 else 3}f}"
                for name, value in numbers.items()
                if name.startswith("promotion/")
            )
            self.inputs.say(f"{phase.name} ends after {step + 1} of {phase.steps} steps: {facts}")
        return Judgement(memory, numbers, ended, heldout)

    def _heldout(self, step: int, measure: Measure) -> dict[Modality, JsonObject]:
        """Held-out numbers of every modality inside a phase, when they are due."""
        section = self.inputs.setup.config.evaluation
        if section.every_steps is None or (step + 1) % section.every_steps:
            return {}
        return {
            modality: measure(modality, problems[: section.problems_inside])
            for modality, problems in self.inputs.setup.evaluation.items()
        }

    def _write_transcripts(self, groups: Groups) -> None:
        setup, logging, step = self.inputs.setup, self.inputs.setup.config.logging, groups.step
        if step.step % logging.transcripts_every:
            return
        phase = setup.curriculum.phases[step.phase_index]
        where = {"kind": "train", "step": step.step, "phase": phase.name, "phase_index": step.phase_index}
        rows = []
        total = len(step.problems) * setup.share.count
        shown = min(logging.transcript_groups, total)
        # Spread over the whole batch and moving with the step: the rows of every host are seen in turn.
        chosen = sorted((step.step + i * total // shown) % total for i in range(shown))
        mine = setup.share.rows(total)
        for row in (row - mine.start for row in chosen if row in mine and setup.share.leads):
            problem, modality = step.problems[row], step.modalities[row]
            text = step.prompts[row].text
            given = groups.texts[row], groups.scores, groups.local, row, setup.tokenizer, setup.model.tokens.ends
            record = transcript(problem, text, *given)
            rows.append(({**where, "modality": modality, **record}, () if modality == "text" else problem.images))
        self.inputs.sinks.transcripts(rows)
