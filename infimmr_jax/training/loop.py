"""A run from start to end, stage after stage; resumable at every checkpoint."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path
from typing import Literal

import jax

from infimmr_jax.config import ConfigError, RunConfig
from infimmr_jax.model.hf import save_params
from infimmr_jax.names import REWARD_COMPONENTS
from infimmr_jax.parallel.hosts import wait_for_hosts
from infimmr_jax.preprocess.tokenizer import save_tokenizer
from infimmr_jax.rewards.components import check_components, try_functions
from infimmr_jax.rewards.loading import LoadError
from infimmr_jax.rewards.pool import GraderPool
from infimmr_jax.rollout.state import SampleSettings
from infimmr_jax.training.checkpoints import Checkpoints
from infimmr_jax.training.differences import kept_problems
from infimmr_jax.training.directory import check_directory, resumed, translated
from infimmr_jax.training.evaluate import evaluate_stage
from infimmr_jax.training.guards import StallGuard
from infimmr_jax.training.lock import locked
from infimmr_jax.training.opening import opening_line
from infimmr_jax.training.place import Place
from infimmr_jax.training.programs import Compilations, Programs
from infimmr_jax.training.progress import Progress
from infimmr_jax.training.provenance import record_run
from infimmr_jax.training.running import Preempted, Run, Signals, evaluated_numbers
from infimmr_jax.training.setup import prepare
from infimmr_jax.training.sinks import open_sinks, open_trackers
from infimmr_jax.training.stage import DuePending, Row, Stage, StageInputs, Start
from infimmr_jax.training.stages import build_stages
from infimmr_jax.training.warm_up import warm_up


def train(config: RunConfig, resume: bool | Literal["auto"] = False) -> list[Row]:
    """Run the whole configuration; returns the rows of evals.jsonl.

    Raises ConfigError or DataError before any training when something can not work, StoppedError when the run can not
    go on (its message says what to do). With `resume` the run in `config.output` goes on from its newest checkpoint, to
    the same numbers as an unbroken run; "auto" starts a run where there is none.
    """
    with translated(config.output), locked(config), contextlib.ExitStack() as stack:
        run, stages = _open(config, config.output, check_directory(config, resume), stack)
        return _run_stages(run, stages)


def _run_stages(run: Run, stages: list[Stage | Start]) -> list[Row]:
    evals: list[Row] = []
    for index, stage in enumerate(stages):
        if index < run.place.stage:
            continue
        if not isinstance(stage, Start):
            _make_steps(run, stage)
        evals += _evaluate(run, stages, index)
    _export(run)
    return evals


def _make_steps(run: Run, stage: Stage) -> None:
    if run.place.step == stage.spec.steps and run.place.memory.due is None:
        return
    if run.place.step == 0:
        # No checkpoint lies between this and the first step: a resumed run does it again, from the same state.
        run.state = stage.begin(run.state)
        run.remember(recent=())
    batches = stage.batches(run.place.step, run.place.data)
    run.progress.phase(stage.spec.name, stage.spec.steps, run.place.step)
    if run.steps_made == 0:
        run.progress.activity("compiling")
    while run.place.step < stage.spec.steps or run.place.memory.due is not None:
        due = run.place.memory.due
        if due is None:
            step = run.place.step
            run.state, pending = stage.step(run.state, batches, step, run.settle)
            run.advance(step=step + 1, data=batches.get_state())
        else:
            step, pending = run.place.step - 1, DuePending(due)
        leave = functools.partial(run.leave_judgement, pending)
        measure = run.measure(f"step {step} of {stage.spec.name} is evaluated", leave)
        judgement = stage.judge(pending, step, run.place.memory, measure)
        pending.row |= judgement.numbers
        run.advance(memory=judgement.memory)
        run.remember(due=None)
        over = judgement.ended or step + 1 == stage.spec.steps
        if over:
            run.advance(step=stage.spec.steps, data=None)
        # The devices are left to it: this row is written when the next step's responses are being sampled.
        run.unread = pending
        # The stage's own evaluation follows the last step, but a state that is due must not wait for it.
        run.after_step(None if over else evaluated_numbers(judgement.heldout))
    run.settle()


def _evaluate(run: Run, stages: list[Stage | Start], index: int) -> list[Row]:
    """Evaluate the end of a stage, and checkpoint: a stage's end is never lost."""
    inputs, name = run.inputs, stages[index].spec.name
    # Rows count the phases from 1; what comes before them is 0 and below.
    before = next((i for i, stage in enumerate(stages) if stage.spec.kind not in ("sft", "start")), len(stages))
    written = inputs.sinks.position()
    answer = run.answerer(f"{name} is evaluated", lambda: run.leave_evaluation(written))
    run.progress.activity(f"evaluating after {name}")
    grpo_steps = sum(run.lengths[i] for i in range(index + 1) if stages[i].spec.kind == "grpo")
    rows = evaluate_stage(
        inputs.setup, run.state.params, answer, inputs.pool, inputs.sinks, name, index - before + 1, grpo_steps
    )
    run.advance(stage=index + 1, step=0, data=None)
    run.save(evaluated_numbers({row["modality"]: row for row in rows}))
    run.stop_if_asked()
    return rows


def _open(
    config: RunConfig, run_dir: Path, resume: bool, stack: contextlib.ExitStack
) -> tuple[Run, list[Stage | Start]]:
    """Read, check and open everything, and find where the run stands."""
    reward = config.reward
    for phase in config.grpo_phases:
        try:
            check_components(phase.reward)
        except LoadError as error:
            raise ConfigError(str(error)) from error
    pool = stack.enter_context(GraderPool(reward.workers, reward.deadline_seconds, reward.memory_mb))
    setup = prepare(config, run_dir, pool)
    for index, phase in enumerate(setup.curriculum.phases):
        if any(name not in REWARD_COMPONENTS for name in phase.reward.weights):
            problem = setup.curriculum.dataset[setup.curriculum.first_draw(index)].problems[0]
            try_functions(phase.reward, problem, phase.group_size, pool)
    trackers = open_trackers(run_dir, config.logging, config.model_dump(mode="json"))
    # Nothing is written before all have looked at what is there.
    wait_for_hosts("prepared")
    if jax.process_index() == 0:
        record_run(setup)
        save_tokenizer(setup.tokenizer, run_dir / "tokenizer")
    guard = stack.enter_context(StallGuard(config.guards, run_dir, jax.process_index()))
    checkpoints = stack.enter_context(Checkpoints(config, setup.model.config, kept_problems(setup.reports)))
    compilations = Compilations()
    programs = Programs(setup)
    progress = stack.enter_context(Progress())
    parameters = sum(leaf.size for leaf in jax.tree.leaves(programs.abstract_state().params))
    progress.note(opening_line(run_dir, parameters, setup.mesh.devices.flat, jax.process_count()))
    warm_up(setup, programs, progress.note)
    restored = checkpoints.resume(programs.restore_target()) if resume else None
    place, state = restored or (Place(), programs.start())
    sinks = stack.enter_context(open_sinks(run_dir, config.logging, place.rows if resume else None, trackers))
    for line in dict.fromkeys(str(report) for report in setup.reports):
        progress.note(line)
    signals = Signals()
    stack.enter_context(signals.caught(progress.note))
    inputs = StageInputs(setup, programs, pool, sinks, compilations, progress.note, signals.agree)
    stages = build_stages(inputs)
    lengths = [stage.spec.steps for stage in stages]
    if resume:
        names = [stage.spec.name for stage in stages]
        progress.note(resumed(restored is not None, place, names, lengths, config))
    settings = _evaluation_settings(config)
    return Run(inputs, progress, checkpoints, guard, signals, state, place, lengths, settings), stages


def _evaluation_settings(config: RunConfig) -> SampleSettings:
    lengths = [phase.max_response for phase in config.grpo_phases] or [s.max_response for s in config.demonstrations]
    length = config.evaluation.max_response or max(lengths)
    return SampleSettings.of(config.rollout, 1, length, temperature=0.0)


def _export(run: Run) -> None:
    """Write the model in the hub's layout, and the best one beside it."""
    run.checkpoints.wait()
    run.guard.beat("the model is written")
    setup = run.inputs.setup
    dtype, image = setup.config.model.param_dtype, setup.config.data.image
    save_params(run.state.params, setup.model, setup.run_dir / "model", setup.tokenizer, dtype=dtype, image=image)
    state = run.checkpoints.restore_best(run.inputs.programs.restore_target())
    if state is not None:
        save_params(state.params, setup.model, setup.run_dir / "model_best", setup.tokenizer, dtype=dtype, image=image)


__all__ = ["Preempted", "Run", "train"]
