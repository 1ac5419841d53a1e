"""A run from start to end: cold start, then phase after phase; resumable at every checkpoint."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np

from infimmr_jax.config import ConfigError, RunConfig
from infimmr_jax.data.curriculum import StepBatch, iterate
from infimmr_jax.grpo.check import check_rewards
from infimmr_jax.grpo.length_rewards import overlong_rewards
from infimmr_jax.grpo.schedules import learning_rate_schedule
from infimmr_jax.grpo.state import TrainState
from infimmr_jax.grpo.step import Rewards
from infimmr_jax.model.hf import save_params
from infimmr_jax.parallel.hosts import host_rows
from infimmr_jax.preprocess.tokenizer import save_tokenizer
from infimmr_jax.rewards.pool import GraderPool
from infimmr_jax.rewards.router import Scores, score_groups
from infimmr_jax.rollout.sampler import Rollouts, SampleSettings
from infimmr_jax.training.checkpoints import Checkpoints, Place
from infimmr_jax.training.evaluate import evaluate_stage
from infimmr_jax.training.programs import Compilations, Programs, tasks_of
from infimmr_jax.training.progress import Progress
from infimmr_jax.training.provenance import record_run
from infimmr_jax.training.scoring import response_texts, transcript
from infimmr_jax.training.second_pass import asks_again, policy_generate
from infimmr_jax.training.setup import Setup, prepare
from infimmr_jax.training.sft import demonstrations, learning_rate_at, total_steps
from infimmr_jax.training.sinks import Sinks, open_sinks


class Preempted(SystemExit):
    """Somebody or the machine asked the run to stop: the state is saved; launchers start it again with --resume."""

    CODE = 75  # EX_TEMPFAIL: try again

    def __init__(self) -> None:
        super().__init__(self.CODE)


@dataclasses.dataclass
class Run:
    """The parts of a running run, and where it stands."""

    setup: Setup
    programs: Programs
    pool: GraderPool
    sinks: Sinks
    progress: Progress
    checkpoints: Checkpoints
    compilations: Compilations
    state: TrainState
    place: Place
    stopping: list[int] = dataclasses.field(default_factory=list)

    def advance(self, **changes: Any) -> None:
        """Move the place on."""
        self.place = dataclasses.replace(self.place, **changes)

    def save(self) -> None:
        """Checkpoint the state where it stands; every row written so far belongs to it."""
        self.advance(rows=self.sinks.position())
        self.checkpoints.save(self.place, self.state)

    def after_step(self) -> None:
        """Checkpoint when it is due, and stop when a signal asked for it."""
        made = self.place.sft_step + self.place.grpo_step
        if self.stopping or made % self.setup.config.checkpoint.every_steps == 0:
            self.save()
        self.stop_if_asked()

    def stop_if_asked(self) -> None:
        """End the run, whose state was just saved, when a signal asked for it."""
        if self.stopping:
            self.checkpoints.wait()
            made = self.place.sft_step + self.place.grpo_step
            self.progress.note(f"stopped by signal {self.stopping[0]} after step {made}; go on with --resume")
            raise Preempted


def train(config: RunConfig, resume: bool = False) -> list[dict[str, Any]]:
    """Run the whole configuration; returns the rows of evals.jsonl.

    Raises ConfigError or DataError before any training when something can not work. With `resume` the run in
    `config.output` goes on from its newest checkpoint, to the same numbers as an unbroken run.
    """
    run_dir = config.output
    _check_directory(run_dir, resume)
    asks_again(config)
    reward = config.reward
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(GraderPool(reward.workers, reward.deadline_seconds, reward.memory_mb))
        setup = prepare(config, run_dir, pool)
        if jax.process_index() == 0:
            record_run(setup)
            save_tokenizer(setup.tokenizer, run_dir / "tokenizer")
        checkpoints = stack.enter_context(Checkpoints(run_dir, config.checkpoint, setup.model))
        compilations = Compilations()
        programs = Programs(setup)
        if resume:
            place = checkpoints.place()
            state = checkpoints.restore(programs.restore_target())
        else:
            place = Place(key=tuple(jax.random.key_data(jax.random.key(config.seed)).tolist()))
            state = programs.start()
        sinks = stack.enter_context(open_sinks(run_dir, config.logging, place.rows if resume else None))
        progress = stack.enter_context(Progress())
        for line in dict.fromkeys(str(report) for report in setup.reports):
            progress.note(line)
        run = Run(setup, programs, pool, sinks, progress, checkpoints, compilations, state, place)
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
        end = curriculum.first_step(index) + phase.steps
        if run.place.grpo_step < end:
            _phase(run, index, end)
        evals += _evaluate(run, index + 1, phase.name)
    run.checkpoints.wait()
    save_params(
        run.state.params,
        setup.model,
        setup.run_dir / "model",
        setup.tokenizer,
        dtype=setup.config.model.param_dtype,
        image=setup.config.data.image,
    )
    return evals


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
        _refuse_nan(row)
        run.sinks.metrics(row)
        run.progress.update(row)
        run.advance(sft_step=step + 1, data=batches.get_state())
        if step + 1 < end:
            run.after_step()
    if end == total_steps(sft):
        run.advance(data=None)


def _evaluate(run: Run, stage_index: int, stage: str) -> list[dict[str, Any]]:
    """Evaluate a stage unless it is done, and checkpoint: a stage's end is never lost."""
    setup = run.setup
    earlier = len(setup.config.sft.stages) - 1 if setup.config.sft is not None else 0
    if run.place.evaluated > stage_index + earlier:
        return []
    settings = SampleSettings(1, _evaluation_length(setup.config), temperature=0.0)
    key = jax.random.key(setup.config.seed)

    def sampler(params: Any, batch: Any) -> Rollouts:
        return run.programs.sample(params, batch, settings, key)

    run.progress.activity(f"evaluating after {stage}")
    step = run.place.grpo_step
    rows = evaluate_stage(setup, run.state.params, sampler, run.pool, run.sinks, stage, stage_index, step)
    run.advance(evaluated=stage_index + earlier + 1, phase=stage)
    run.save()
    run.stop_if_asked()
    return rows


def _phase(run: Run, index: int, end: int) -> None:
    setup = run.setup
    phase = setup.curriculum.phases[index]
    first = setup.curriculum.first_step(index)
    settings = run.programs.phase_settings(phase)
    total = setup.curriculum.total_steps
    rates = learning_rate_schedule(setup.config.optimizer, total, phase.learning_rate)
    key = jax.random.wrap_key_data(jnp.asarray(run.place.key, jnp.uint32))
    batches = iterate(setup.curriculum, run.place.grpo_step, setup.config.data.threads, setup.config.data.prefetch)
    if run.place.data is not None:
        batches.set_state(run.place.data)
    run.progress.phase(phase.name, phase.steps, run.place.grpo_step - first)
    for step in range(run.place.grpo_step, end):
        began = time.monotonic()
        batch: StepBatch = next(batches)
        waited = time.monotonic() - began
        rate = float(rates(step))
        row: dict[str, Any] = {"kind": "grpo", "phase": phase.name, "phase_index": index, "step": step}
        row |= {"step_in_phase": batch.step_in_phase, "optimizer/learning_rate": rate}
        row |= _grpo_step(run, batch, settings, jax.random.fold_in(key, step), rate)
        seconds = time.monotonic() - began
        row |= {"time/step": seconds, "time/input_wait": waited}
        row |= {"tokens_per_second": row["rollout/tokens"] / seconds}
        row |= {"compile/count": run.compilations.count, "compile/seconds": run.compilations.seconds}
        run.sinks.metrics(row)
        _refuse_nan(row)
        run.progress.update(row)
        run.advance(grpo_step=step + 1, data=batches.get_state(), phase=phase.name)
        if step + 1 < end:
            run.after_step()


def _grpo_step(run: Run, step: StepBatch, settings: SampleSettings, key: jax.Array, rate: float) -> dict[str, Any]:
    """Sample, grade, update; the transcripts are written while the devices compute the update."""
    setup, config = run.setup, run.setup.config
    began = time.monotonic()
    rollouts = run.programs.sample(run.state.params, step.batch, settings, key)
    local = _local(rollouts)
    sampled = time.monotonic()
    texts = response_texts(setup.tokenizer, local.tokens, local.mask)
    scores = score_groups(
        step.problems,
        texts,
        local.finished,
        local.lengths,
        config.reward,
        config.prompt.format,
        run.pool,
        generate=policy_generate(setup, run.programs, run.state.params) if asks_again(config) else None,
    )
    check_rewards({**scores.components, "total": scores.total}, [problem.id for problem in step.problems])
    total = scores.total + overlong_rewards(local.lengths, settings.max_response, config.grpo.overlong)
    tasks = tasks_of(step.problems, run.programs.task_names)
    rewards = Rewards(np.asarray(total, np.float32), scores.components, tasks)
    graded = time.monotonic()
    run.state, metrics = run.programs.update(run.state, step.batch, rollouts, rewards, rate, step.step)
    _write_transcripts(run, step, texts, scores, local)
    numbers = {name: float(value) for name, value in jax.device_get(metrics).items()}
    done = time.monotonic()
    counted = {f"grading/{name}": count for name, count in scores.counters.items()}
    return {
        **numbers,
        **counted,
        "time/rollout": sampled - began,
        "time/grade": graded - sampled,
        "time/update": done - graded,
    }


def _local(rollouts: Rollouts) -> Any:
    """This host's rows of the rollouts, as NumPy arrays; the step counter, which is no row, stays away."""
    nothing: Any = None
    return host_rows(dataclasses.replace(rollouts, executed=nothing))


def _write_transcripts(run: Run, step: StepBatch, texts: list[list[str]], scores: Scores, local: Rollouts) -> None:
    logging = run.setup.config.logging
    if step.step % logging.transcripts_every:
        return
    phase = run.setup.curriculum.phases[step.phase_index]
    where = {"kind": "train", "step": step.step, "phase": phase.name, "phase_index": step.phase_index}
    for row in range(min(logging.transcript_groups, len(step.problems))):
        problem, modality = step.problems[row], step.modalities[row]
        record = transcript(problem, step.prompts[row].text, texts[row], scores, local, row, run.setup.tokenizer)
        images = [] if modality == "text" else [run.sinks.transcript_image(image) for image in problem.images]
        run.sinks.transcript({**where, "modality": modality, **record, "images": images})


def _refuse_nan(row: dict[str, Any]) -> None:
    if not np.isfinite(row["loss"]):
        raise FloatingPointError(
            f"the loss of {row['kind']} step {row['step']} is {row['loss']}: the checkpoint before it is kept; "
            "lower the learning rate or look at the step's transcripts"
        )


def _evaluation_length(config: RunConfig) -> int:
    return config.evaluation.max_response or max(phase.max_response for phase in config.phases)


def _check_directory(run_dir: Path, resume: bool) -> None:
    started = (run_dir / "checkpoints").exists() or (run_dir / "metrics.jsonl").exists()
    if started and not resume:
        raise ConfigError(
            f"{run_dir} already holds a run: continue it with --resume, or give another directory with --set output=DIR"
        )
    if resume and not started:
        raise ConfigError(f"{run_dir} holds no run to resume: start it without --resume")
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        probe = run_dir / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"the output directory {run_dir} can not be written: {error.strerror}") from error


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
