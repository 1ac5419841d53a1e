"""A run from start to end: cold start, then phase after phase; resumable at every checkpoint."""

from __future__ import annotations

import contextlib
import functools
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import grain
import jax

from infimmr_jax.config import ConfigError, RunConfig
from infimmr_jax.model.hf import save_params
from infimmr_jax.parallel.hosts import wait_for_hosts
from infimmr_jax.preprocess.tokenizer import save_tokenizer
from infimmr_jax.rewards.components import check_components
from infimmr_jax.rewards.loading import LoadError
from infimmr_jax.rewards.pool import GraderPool
from infimmr_jax.rollout.state import SampleSettings
from infimmr_jax.training.checkpoints import Checkpoints, Place
from infimmr_jax.training.directory import check_directory, resumed, translated
from infimmr_jax.training.evaluate import evaluate_stage
from infimmr_jax.training.guards import StallGuard
from infimmr_jax.training.phase import run_phase
from infimmr_jax.training.programs import Compilations, Programs
from infimmr_jax.training.progress import Progress
from infimmr_jax.training.provenance import record_run
from infimmr_jax.training.running import Preempted, Run, evaluated_numbers
from infimmr_jax.training.setup import prepare
from infimmr_jax.training.sft import demonstrations, learning_rate_at, total_steps
from infimmr_jax.training.sinks import open_sinks
from infimmr_jax.training.warm_up import warm_up


def train(config: RunConfig, resume: bool | Literal["auto"] = False) -> list[dict[str, Any]]:
    """Run the whole configuration; returns the rows of evals.jsonl.

    Raises ConfigError or DataError before any training when something can not work, StoppedError when the run can not
    go on (its message says what to do). With `resume` the run in `config.output` goes on from its newest checkpoint, to
    the same numbers as an unbroken run; "auto" starts a run where there is none.
    """
    with translated(config.output):
        return _train(config, config.output, check_directory(config, resume))


def _train(config: RunConfig, run_dir: Path, resume: bool) -> list[dict[str, Any]]:
    reward = config.reward
    for phase in config.phases:
        try:
            check_components(phase.reward)
        except LoadError as error:
            raise ConfigError(str(error)) from error
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(GraderPool(reward.workers, reward.deadline_seconds, reward.memory_mb))
        setup = prepare(config, run_dir, pool)
        # Nothing is written before all have looked at what is there.
        wait_for_hosts("prepared")
        if jax.process_index() == 0:
            record_run(setup)
            save_tokenizer(setup.tokenizer, run_dir / "tokenizer")
        guard = stack.enter_context(StallGuard(config.guards, run_dir, jax.process_index()))
        checkpoints = stack.enter_context(Checkpoints(config, setup.model))
        compilations = Compilations()
        programs = Programs(setup)
        progress = stack.enter_context(Progress())
        warm_up(setup, programs, progress.note)
        found = checkpoints.resume(programs.restore_target()) if resume else None
        if found is None:
            place = Place(key=tuple(jax.random.key_data(jax.random.key(config.seed)).tolist()))
            state = programs.start()
        else:
            place, state = found
        sinks = stack.enter_context(open_sinks(run_dir, config.logging, place.rows if resume else None))
        for line in dict.fromkeys(str(report) for report in setup.reports):
            progress.note(line)
        if resume:
            progress.note(resumed(found is not None, place, config))
        run = Run(setup, programs, pool, sinks, progress, checkpoints, compilations, guard, state, place)
        with _signals(run):
            evals = _run(run)
    return evals


def _run(run: Run) -> list[dict[str, Any]]:
    setup = run.setup
    evals: list[dict[str, Any]] = []
    curriculum = setup.curriculum
    stages = setup.config.sft.stages if setup.config.sft is not None else ()
    for index, stage in enumerate(stages):
        end = sum(earlier.steps for earlier in stages[: index + 1])
        if run.place.sft_step < end:
            _cold_start(run, index, end)
        if index + 1 == len(stages) and run.place.evaluated <= index:
            run.state = run.programs.begin_phases(run.state.params)
        evals += _evaluate(run, index + 1 - len(stages), stage.name)
    if not stages:
        evals += _evaluate(run, 0, "start")
    for index, phase in enumerate(curriculum.phases):
        if run.place.grpo_step < curriculum.first_step(index) + phase.steps:
            run_phase(run, index, _evaluation_settings(setup.config))
        evals += _evaluate(run, index + 1, phase.name)
    run.checkpoints.wait()
    run.guard.beat("the model is written")
    _export(run, run.state.params, "model")
    best = run.checkpoints.best()
    if best is not None:
        _export(run, run.checkpoints.restore(run.programs.restore_target(), best).params, "model_best")
    return evals


def _export(run: Run, params: Any, name: str) -> None:
    setup = run.setup
    save_params(
        params,
        setup.model,
        setup.run_dir / name,
        setup.tokenizer,
        dtype=setup.config.model.param_dtype,
        image=setup.config.data.image,
    )


def _evidence(batch: Any) -> tuple[Any, dict[str, Any]]:
    return batch, {}


def _cold_start(run: Run, index: int, end: int) -> None:
    setup, sft = run.setup, run.setup.config.sft
    assert sft is not None
    assert setup.demonstrations is not None
    first = end - sft.stages[index].steps
    options = grain.ReadOptions(num_threads=setup.config.data.threads, prefetch_buffer_size=setup.config.data.prefetch)
    batches = iter(demonstrations(setup.demonstrations).to_iter_dataset(options))
    if run.place.data is not None:
        batches.set_state(run.place.data)
    name = sft.stages[index].name
    run.progress.phase(name, end - first, run.place.sft_step - first)
    if run.place.sft_step == 0:
        run.progress.activity("compiling")
    for step in range(run.place.sft_step, end):
        began = time.monotonic()
        batch = next(batches)
        waited = time.monotonic() - began
        rate = learning_rate_at(step, sft)
        run.state, metrics = run.programs.cold_start(run.state, batch, rate)
        numbers = {name: float(value) for name, value in jax.device_get(metrics).items()}
        seconds = time.monotonic() - began
        row = {"kind": "sft", "phase": name, "phase_index": index, "step": step, "step_in_phase": step - first}
        row |= numbers | {"optimizer/learning_rate": rate, "time/step": seconds, "time/input_wait": waited}
        row |= {"tokens_per_second": float(batch.mask.sum()) * jax.process_count() / seconds}
        row |= {"compile/count": run.compilations.count, "compile/seconds": run.compilations.seconds}
        run.advance(sft_step=step + 1, data=batches.get_state() if step + 1 < total_steps(sft) else None)
        run.end_step(row, functools.partial(_evidence, batch))
        run.agree()
        run.after_step()


def _evaluate(run: Run, stage_index: int, stage: str) -> list[dict[str, Any]]:
    """Evaluate a stage unless it is done, and checkpoint: a stage's end is never lost."""
    setup = run.setup
    earlier = len(setup.config.sft.stages) - 1 if setup.config.sft is not None else 0
    if run.place.evaluated > stage_index + earlier:
        return []
    run.settle()
    written = run.sinks.position()
    settings = _evaluation_settings(setup.config)
    sampler = run.answerer(settings, f"{stage} is evaluated", lambda: run.leave_evaluation(written))
    run.progress.activity(f"evaluating after {stage}")
    step = run.place.grpo_step
    rows = evaluate_stage(setup, run.state.params, sampler, run.pool, run.sinks, stage, stage_index, step)
    run.advance(evaluated=stage_index + earlier + 1, phase=stage)
    run.save(evaluated_numbers({row["modality"]: row for row in rows}))
    run.stop_if_asked()
    return rows


def _evaluation_settings(config: RunConfig) -> SampleSettings:
    length = config.evaluation.max_response or max(phase.max_response for phase in config.phases)
    return SampleSettings(1, length, temperature=0.0, compactions=config.rollout.compactions_for(length))


@contextlib.contextmanager
def _signals(run: Run) -> Iterator[None]:
    """SIGTERM (a preempted machine) and the first Ctrl-C end the run after the step in flight, with a checkpoint."""

    def ask(number: int, _: Any) -> None:
        if run.stopping and number == signal.SIGINT:
            raise KeyboardInterrupt
        run.stopping.append(number)
        run.progress.note("stopping after this step, with a checkpoint; Ctrl-C again stops at once")

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


__all__ = ["Preempted", "Run", "train"]
