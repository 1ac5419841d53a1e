"""A run from start to end: cold start, then phase after phase; resumable at every checkpoint."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import grain
import jax
import jax.numpy as jnp
import numpy as np

from infimmr_jax.config import RunConfig
from infimmr_jax.config.training import EVALUATED
from infimmr_jax.data.curriculum import StepBatch, iterate
from infimmr_jax.grpo.check import check_rewards
from infimmr_jax.grpo.length_rewards import overlong_rewards
from infimmr_jax.grpo.schedules import learning_rate_schedule
from infimmr_jax.grpo.state import TrainState
from infimmr_jax.grpo.step import Rewards
from infimmr_jax.model.hf import save_params
from infimmr_jax.parallel.hosts import host_rows, largest_over_hosts, leaders_rows, wait_for_hosts
from infimmr_jax.preprocess.tokenizer import save_tokenizer
from infimmr_jax.rewards.pool import GraderPool
from infimmr_jax.rewards.router import Scores, score_groups
from infimmr_jax.rollout.sampler import Rollouts, SampleSettings
from infimmr_jax.training.checkpoints import Checkpoints, Place
from infimmr_jax.training.directory import check_directory, resumed, translated
from infimmr_jax.training.evaluate import evaluate_stage
from infimmr_jax.training.guards import Evidence, StallGuard, StoppedError, count_broken, write_evidence
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
    guard: StallGuard
    state: TrainState
    place: Place
    stopping: list[int] = dataclasses.field(default_factory=list)

    def advance(self, **changes: Any) -> None:
        """Move the place on."""
        self.place = dataclasses.replace(self.place, **changes)

    def save(self, metrics: dict[str, float] | None = None) -> None:
        """Checkpoint the state where it stands; every row written so far belongs to it.

        `metrics` are those of the evaluation just made.
        """
        self.advance(rows=self.sinks.position())
        self.checkpoints.save(self.place, self.state, metrics)

    def end_step(self, row: dict[str, Any], evidence: Evidence) -> None:
        """Write a step's row; count updates without a number, and stop at too many in a row.

        `evidence` gives the arrays of this host and the words that the update was computed from.
        """
        self.sinks.metrics(row)
        self.progress.update(row)
        self.advance(broken=count_broken(row, self.place.broken))
        most = self.setup.config.guards.max_nonfinite
        if self.place.broken >= most:
            where = write_evidence(self.setup.run_dir / "nonfinite", row, *evidence())
            self.advance(broken=0)
            self.save()
            self.checkpoints.wait()
            raise StoppedError(
                f"the loss or gradient of {most} updates in a row (guards.max_nonfinite) was not finite, the last one "
                f"in {row['kind']} step {row['step']}: they were skipped, the state is saved, and what the last one "
                f"was computed from is in {where}; lower the learning rate or look at the rewards there"
            )
        self.guard.beat(f"{row['kind']} step {row['step'] + 1} is made")

    def after_step(self) -> None:
        """Checkpoint when it is due, and stop when a signal asked for it."""
        made = self.place.sft_step + self.place.grpo_step
        # A signal may come to one host a step earlier than to another: they save and stop together.
        signal_number = int(largest_over_hosts(np.asarray([self.stopping[0] if self.stopping else 0]))[0])
        if signal_number or made % self.setup.config.checkpoint.every_steps == 0:
            self.save()
        self.stop_if_asked(signal_number)

    def stop_if_asked(self, signal_number: int | None = None) -> None:
        """End the run, whose state was just saved, when a signal asked any host for it."""
        if signal_number is None:
            signal_number = int(largest_over_hosts(np.asarray([self.stopping[0] if self.stopping else 0]))[0])
        if signal_number:
            self.checkpoints.wait()
            made = self.place.sft_step + self.place.grpo_step
            self.progress.note(f"stopped by signal {signal_number} after step {made}; go on with --resume")
            raise Preempted


def train(config: RunConfig, resume: bool | Literal["auto"] = False) -> list[dict[str, Any]]:
    """Run the whole configuration; returns the rows of evals.jsonl.

    Raises ConfigError or DataError before any training when something can not work, StoppedError when the run can not
    go on (its message says what to do). With `resume` the run in `config.output` goes on from its newest checkpoint, to
    the same numbers as an unbroken run; "auto" starts a run where there is none.
    """
    run_dir = config.output
    resume = check_directory(config, resume)
    with translated(run_dir):
        return _train(config, run_dir, resume)


def _train(config: RunConfig, run_dir: Path, resume: bool) -> list[dict[str, Any]]:
    reward = config.reward
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
        found = checkpoints.resume(programs.restore_target()) if resume else None
        if found is None:
            place = Place(key=tuple(jax.random.key_data(jax.random.key(config.seed)).tolist()))
            state = programs.start()
        else:
            place, state = found
        sinks = stack.enter_context(open_sinks(run_dir, config.logging, place.rows if resume else None))
        progress = stack.enter_context(Progress())
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
        end = curriculum.first_step(index) + phase.steps
        if run.place.grpo_step < end:
            _phase(run, index, end)
        evals += _evaluate(run, index + 1, phase.name)
    run.checkpoints.wait()
    run.guard.beat("the model is written")
    _export(run, run.state.params, "model")
    best = run.checkpoints.best()
    if best is not None:
        state = run.checkpoints.restore(run.programs.restore_target(), best)
        _export(run, state.params, "model_best")
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
        run.advance(sft_step=step + 1, data=batches.get_state())
        run.end_step(row, lambda batch=batch: (batch, {}))
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
        run.guard.beat(f"{stage} is evaluated")
        return run.programs.sample(params, batch, settings, key)

    run.progress.activity(f"evaluating after {stage}")
    step = run.place.grpo_step
    rows = evaluate_stage(setup, run.state.params, sampler, run.pool, run.sinks, stage, stage_index, step)
    run.advance(evaluated=stage_index + earlier + 1, phase=stage)
    run.save({f"{row['modality']}/{name}": float(row[name]) for row in rows for name in EVALUATED})
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
        numbers, evidence = _grpo_step(run, batch, settings, jax.random.fold_in(key, step), rate)
        row |= numbers
        seconds = time.monotonic() - began
        row |= {"time/step": seconds, "time/input_wait": waited}
        row |= {"tokens_per_second": row["rollout/tokens"] / seconds}
        row |= {"compile/count": run.compilations.count, "compile/seconds": run.compilations.seconds}
        run.advance(grpo_step=step + 1, data=batches.get_state(), phase=phase.name)
        run.end_step(row, evidence)
        if step + 1 < end:
            run.after_step()


def _grpo_step(
    run: Run, step: StepBatch, settings: SampleSettings, key: jax.Array, rate: float
) -> tuple[dict[str, Any], Evidence]:
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
    rewards = leaders_rows(Rewards(np.asarray(total, np.float32), scores.components, tasks), setup.share)
    graded = time.monotonic()
    run.state, metrics = run.programs.update(run.state, step.batch, rollouts, rewards, rate, step.step)
    _write_transcripts(run, step, texts, scores, local)
    numbers = {name: float(value) for name, value in jax.device_get(metrics).items()}
    done = time.monotonic()
    counted = {f"grading/{name}": count for name, count in scores.counters.items()}
    times = {"time/rollout": sampled - began, "time/grade": graded - sampled, "time/update": done - graded}

    def evidence() -> tuple[Any, dict[str, Any]]:
        words = {"problems": [problem.id for problem in step.problems], "responses": texts}
        return {"batch": step.batch, "rollouts": local, "rewards": rewards}, words

    return {**numbers, **counted, **times}, evidence


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
    share, total = run.setup.share, phase.prompts_per_step
    groups = min(logging.transcript_groups, total)
    # Spread over the whole batch and moving with the step: every host's rows are seen in turn.
    chosen = sorted((step.step + i * total // groups) % total for i in range(groups))
    mine, rows = share.rows(total), []
    for row in (row - mine.start for row in chosen if row in mine and share.leads):
        problem, modality = step.problems[row], step.modalities[row]
        record = transcript(problem, step.prompts[row].text, texts[row], scores, local, row, run.setup.tokenizer)
        rows.append(({**where, "modality": modality, **record}, () if modality == "text" else problem.images))
    run.sinks.transcripts(rows)


def _evaluation_length(config: RunConfig) -> int:
    return config.evaluation.max_response or max(phase.max_response for phase in config.phases)


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
