"""A running run: its parts, where it stands, when it is saved and when it stops."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from infimmr_jax.config.training import EVALUATED
from infimmr_jax.data.records import Problem
from infimmr_jax.errors import StoppedError
from infimmr_jax.names import JsonObject, Modality
from infimmr_jax.objectives.train_state import TrainState
from infimmr_jax.parallel.hosts import largest_over_hosts
from infimmr_jax.preprocess.batching import PromptBatch
from infimmr_jax.rollout.state import Rollouts, SampleSettings
from infimmr_jax.training.checkpoints import Checkpoints
from infimmr_jax.training.evaluate import heldout_numbers
from infimmr_jax.training.guards import TRY_AGAIN, StallGuard, count_broken, write_evidence
from infimmr_jax.training.place import Place
from infimmr_jax.training.progress import Progress
from infimmr_jax.training.stage import Measure, Pending, Row, StageInputs


class Preempted(SystemExit):
    """Somebody or the machine asked the run to stop: the state is saved; launchers start it again with --resume."""

    def __init__(self) -> None:
        super().__init__(TRY_AGAIN)


class Signals:
    """Which signals asked the run to stop: `got` by this process, `agreed` by all hosts."""

    def __init__(self) -> None:
        self.got: list[int] = []
        self.agreed = 0

    def agree(self) -> None:
        """All-reduce the pending signal, so that all hosts stop at the same step."""
        self.agreed = int(largest_over_hosts(np.asarray([self.got[0] if self.got else 0]))[0])

    @contextlib.contextmanager
    def caught(self, say: Callable[[str], None]) -> Iterator[None]:
        """Catch SIGTERM (a preempted machine) and the first Ctrl-C: the run ends after its step, with a checkpoint."""

        def ask(number: int, _: Any) -> None:
            if self.got and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.got.append(number)
            say("stopping after this step, with a checkpoint; Ctrl-C again stops at once")

        before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def evaluated_numbers(found: Mapping[Any, Mapping[str, Any]]) -> dict[str, float]:
    """Return the numbers of held-out sets as `checkpoint.keep_best` names them, `modality/number`."""
    return {f"{modality}/{name}": float(numbers[name]) for modality, numbers in found.items() for name in EVALUATED}


@dataclasses.dataclass
class Run:
    """The parts of a running run, and where it stands.

    `lengths` are the planned steps of every stage, `evaluation` is how held-out problems are answered, `unread` the
    step whose metrics the devices may still be computing.
    """

    inputs: StageInputs
    progress: Progress
    checkpoints: Checkpoints
    guard: StallGuard
    signals: Signals
    state: TrainState
    place: Place
    lengths: Sequence[int]
    evaluation: SampleSettings
    unread: Pending | None = None
    ready: float = 0.0

    @property
    def steps_made(self) -> int:
        """Optimiser steps of the whole run."""
        return self.place.steps_made(self.lengths)

    def advance(self, **changes: Any) -> None:
        """Move the place on."""
        self.place = dataclasses.replace(self.place, **changes)

    def remember(self, **changes: Any) -> None:
        """Change what the place remembers."""
        self.advance(memory=dataclasses.replace(self.place.memory, **changes))

    def save(self, metrics: dict[str, float] | None = None) -> None:
        """Checkpoint the state where it stands; every row written so far belongs to it.

        `metrics` are those of the evaluation just made.
        """
        self.settle()
        self.advance(rows=self.inputs.sinks.position())
        self.checkpoints.save(self.place.number(self.lengths), self.place, self.state, metrics)

    def settle(self) -> float:
        """Write the row of the last step, when that is still to do: it waits until the step is computed.

        Returns when the devices had computed the last step whose row is written.
        """
        unread, self.unread = self.unread, None
        if unread is not None:
            row, self.ready = unread.finished()
            self._write(row, unread)
        return self.ready

    def _write(self, row: Row, pending: Pending) -> None:
        """Write a step's row; stop at too many updates in a row without a number."""
        self.inputs.sinks.metrics(row)
        self.progress.update(row)
        self.remember(broken=count_broken(row, self.place.memory.broken))
        setup = self.inputs.setup
        most = setup.config.guards.max_nonfinite
        if self.place.memory.broken >= most:
            where = write_evidence(setup.run_dir / "nonfinite", row, *pending.evidence())
            self.remember(broken=0)
            self.save()
            self.checkpoints.wait()
            raise StoppedError(
                f"the loss or gradient of {most} updates in a row (guards.max_nonfinite) was not finite, the last one "
                f"in {row['kind']} step {row['step']}: they were skipped, the state is saved, and what the last one "
                f"was computed from is in {where}; lower the learning rate or look at the rewards there"
            )
        self.guard.beat(f"{row['kind']} step {row['step'] + 1} is made")

    def measure(self, what: str, between: Callable[[], None]) -> Measure:
        """Return what measures held-out problems with the present policy, for what is judged inside stages.

        `between` is called before every batch, on all hosts.
        """
        answer = self.answerer(what, between)
        inputs = self.inputs

        def measured(modality: Modality, problems: Sequence[Problem]) -> JsonObject:
            return heldout_numbers(inputs.setup, self.state.params, answer, inputs.pool, modality, problems)

        return measured

    def answerer(self, what: str, between: Callable[[], None]) -> Callable[[Any, PromptBatch], Rollouts]:
        """Return how held-out problems are answered, with the run's own seed; see `measure`."""
        key = jax.random.key(self.inputs.setup.config.seed)

        def answer(params: PyTree, batch: PromptBatch) -> Rollouts:
            self.guard.beat(what)
            between()
            return self.inputs.programs.sample(params, batch, self.evaluation, key)

        return answer

    def after_step(self, evaluated: dict[str, float] | None = None) -> None:
        """Checkpoint when it is due, and stop when a signal asked for it.

        `evaluated` are the numbers of held-out problems that were just asked: with `checkpoint.keep_best` this state is
        a candidate, so it is saved whatever the step. Several hosts go by what they agreed on last: asking now would
        wait for the update.
        """
        if jax.process_count() == 1:
            self.signals.agree()
        section = self.inputs.setup.config.checkpoint
        candidate = section.keep_best is not None and bool(evaluated)
        if self.signals.agreed or candidate or self.steps_made % section.every_steps == 0:
            self.save(evaluated)
        self._stop()

    def stop_if_asked(self) -> None:
        """End the run, whose state was just saved, when a signal asked for it."""
        self.signals.agree()
        self._stop()

    def leave_evaluation(self, written: dict[str, int]) -> None:
        """End the run inside the evaluation of a stage's end when a signal asked for it; it is made again on resume.

        `written` are the lines of each file from before the evaluation. A machine that is taken back gives less time
        than many held-out problems need.
        """
        self.signals.agree()
        if self.signals.agreed:
            self.advance(rows=written)
            number = self.place.number(self.lengths)
            if self.checkpoints.latest() != number:
                self.checkpoints.save(number, self.place, self.state)
            self._stop()

    def leave_judgement(self, pending: Pending) -> None:
        """End the run inside an evaluation between two steps when a signal asked for it; on resume only that is made.

        The step is made and its row is not written: it waits in the place.
        """
        self.signals.agree()
        if self.signals.agreed:
            row, _ = pending.finished()
            self.remember(due=row)
            self.save()
            self._stop()

    def _stop(self) -> None:
        if self.signals.agreed:
            self.checkpoints.wait()
            self.progress.note(
                f"stopped by signal {self.signals.agreed} after step {self.steps_made}; go on with --resume"
            )
            raise Preempted


__all__ = ["Preempted", "Run", "Signals", "evaluated_numbers"]
