"""One phase of the curriculum, step by step: draw groups, update, and look whether the phase has done its work."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import threading
import time
from concurrent.futures import Future
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from infimmr_jax.config import PhaseSection
from infimmr_jax.data.curriculum import iterate
from infimmr_jax.names import Modality
from infimmr_jax.objectives.schedules import Clock, learning_rate_at
from infimmr_jax.rollout.state import SampleSettings
from infimmr_jax.training.evaluate import heldout_numbers
from infimmr_jax.training.groups import Groups, collect
from infimmr_jax.training.guards import Evidence
from infimmr_jax.training.histograms import histograms
from infimmr_jax.training.promotion import kept_history, promoted
from infimmr_jax.training.running import Run, evaluated_numbers
from infimmr_jax.training.scoring import transcript


def run_phase(run: Run, index: int, evaluation: SampleSettings) -> None:
    """Make the steps of phase `index` that are not made yet.

    Steps are counted over the curriculum as it is planned: a phase that ends early leaves out the rest of its numbers.
    `evaluation` is how held-out problems are answered.
    """
    setup, curriculum = run.setup, run.setup.curriculum
    phase, first = curriculum.phases[index], curriculum.first_step(index)
    end = first + phase.steps
    if run.place.grpo_step == first:
        # No checkpoint lies between this and the first step: a resumed run does it again, from the same state.
        run.state = run.programs.begin_phase(run.state, index)
        run.advance(recent=())
    key = jax.random.wrap_key_data(jnp.asarray(run.place.key, jnp.uint32))
    batches = iterate(curriculum, curriculum.first_draw(index), setup.config.data.threads, setup.config.data.prefetch)
    if run.place.data is not None:
        batches.set_state(run.place.data)
    run.progress.phase(phase.name, phase.steps, run.place.grpo_step - first)
    while run.place.grpo_step < end:
        step = run.place.grpo_step
        clock = Clock(step, curriculum.total_steps, step - first, phase.steps)
        made = _grpo_step(run, batches, phase, jax.random.fold_in(key, step), clock)
        run.advance(recent=kept_history(run.place.recent, made.row, made.read, phase.promotion))
        done, why = promoted(run, phase, clock.phase_step, evaluation)
        found = _heldout(run, step, evaluation)
        made.row |= why | {f"heldout/{modality}": numbers["accuracy"] for modality, numbers in found.items()}
        if found:
            made.row["time/heldout"] = sum(numbers["time/evaluation"] for numbers in found.values())
        if done and step + 1 < end:
            facts = ", ".join(
                f"{name.split('/')[1]} {value:,.{0 if value >= 1000 else 3}f}"
                for name, value in why.items()
                if name.startswith("promotion/")
            )
            run.progress.note(f"{phase.name} ends after {clock.phase_step + 1} of {phase.steps} steps: {facts}")
            step = end - 1
        over = step + 1 == end
        run.advance(grpo_step=step + 1, data=None if over else batches.get_state(), phase=phase.name)
        # The devices are left to it: this row is written when the next step's responses are being sampled.
        run.unread = functools.partial(_finish, run, made)
        # The stage's own evaluation follows the last step, but a state that is due must not wait for it.
        run.after_step(None if over else evaluated_numbers(found))
    run.settle()


@dataclasses.dataclass
class _Made:
    """A step whose update may still be computed: its row, without what `metrics` will tell; times by the clock."""

    row: dict[str, Any]
    metrics: dict[str, jax.Array]
    evidence: Evidence
    began: float
    updated: float
    _numbers: dict[str, float] | None = None

    def __post_init__(self) -> None:
        # The host may evaluate, wait for input or compile before it reads them: that is no time of this update.
        self._ready = Future[float]()
        threading.Thread(target=_stamp, args=(self.metrics, self._ready), daemon=True).start()

    def read(self) -> dict[str, float]:
        """The metrics as numbers; waits until they are there."""
        if self._numbers is None:
            self._numbers = {name: float(value) for name, value in jax.device_get(self.metrics).items()}
        return self._numbers

    def finished(self) -> tuple[dict[str, Any], float]:
        """The whole row, and when the devices had computed it."""
        numbers, ready = self.read(), self._ready.result()
        seconds = ready - self.began
        times = {"time/update": ready - self.updated, "time/step": seconds}
        return self.row | numbers | times | {"tokens_per_second": numbers["rollout/tokens"] / seconds}, ready


def _stamp(arrays: Any, ready: Future[float]) -> None:
    # An error of the devices is raised where the arrays are read.
    with contextlib.suppress(Exception):
        jax.block_until_ready(arrays)
    ready.set_result(time.monotonic())


def _finish(run: Run, made: _Made) -> None:
    row, run.ready = made.finished()
    run.end_step(row, made.evidence)


def _grpo_step(run: Run, batches: Any, phase: PhaseSection, key: jax.Array, clock: Clock) -> _Made:
    """Sample, grade, and begin the update; the transcripts are written while the devices compute it."""
    groups, drawing = collect(run, batches, phase, key, clock.step)
    updated = time.monotonic()
    rate = learning_rate_at(phase.optimizer, clock)
    run.state, metrics = run.programs.update(
        run.state, groups.step.batch, groups.rollouts, groups.rewards, phase, rate, clock
    )
    _write_transcripts(run, groups)
    counted = {f"grading/{name}": count for name, count in groups.scores.counters.items()}
    if groups.bad:
        counted["grading/bad_rewards"] = len(groups.bad)
    spread = histograms(np.asarray(groups.local.lengths), groups.scores.total, phase.max_response, run.setup.share)

    def evidence() -> tuple[Any, dict[str, Any]]:
        words = {"problems": [problem.id for problem in groups.step.problems], "responses": groups.texts}
        return {"batch": groups.step.batch, "rollouts": groups.local, "rewards": groups.rewards}, words

    row = {
        "kind": "grpo",
        "phase": phase.name,
        "phase_index": groups.step.phase_index,
        "step": clock.step,
        "step_in_phase": clock.phase_step,
        "optimizer/learning_rate": rate,
        **counted,
        **drawing,
        **spread,
        "time/input_wait": groups.seconds.input,
        "time/rollout": groups.seconds.rollout,
        "time/grade": groups.seconds.grade,
        "compile/count": run.compilations.count,
        "compile/seconds": run.compilations.seconds,
    }
    return _Made(row, metrics, evidence, groups.seconds.began, updated)


def _heldout(run: Run, step: int, settings: SampleSettings) -> dict[Modality, dict[str, Any]]:
    """Held-out numbers of every modality inside a phase, when they are due."""
    section = run.setup.config.evaluation
    if section.every_steps is None or (step + 1) % section.every_steps:
        return {}
    sampler = run.answerer(settings, f"step {step} is evaluated")
    return {
        modality: heldout_numbers(
            run.setup, run.state.params, sampler, run.pool, modality, problems[: section.problems_inside]
        )
        for modality, problems in run.setup.evaluation.items()
    }


def _write_transcripts(run: Run, groups: Groups) -> None:
    setup, logging, step = run.setup, run.setup.config.logging, groups.step
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
        given = groups.texts[row], groups.scores, groups.local, row, setup.tokenizer, setup.model.tokens.eos
        record = transcript(problem, text, *given)
        rows.append(({**where, "modality": modality, **record}, () if modality == "text" else problem.images))
    run.sinks.transcripts(rows)
