"""A running run: its parts, where it stands, when it is saved and when it stops."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from infimmr_jax.config.training import EVALUATED
from infimmr_jax.errors import StoppedError
from infimmr_jax.objectives.train_state import TrainState
from infimmr_jax.parallel.hosts import largest_over_hosts
from infimmr_jax.preprocess.batching import PromptBatch
from infimmr_jax.rewards.pool import GraderPool
from infimmr_jax.rollout.state import Rollouts, SampleSettings
from infimmr_jax.training.checkpoints import Checkpoints, Place
from infimmr_jax.training.guards import TRY_AGAIN, Evidence, StallGuard, count_broken, write_evidence
from infimmr_jax.training.programs import Compilations, Programs
from infimmr_jax.training.progress import Progress
from infimmr_jax.training.setup import Setup
from infimmr_jax.training.sinks import Sinks


class Preempted(SystemExit):
    """Somebody or the machine asked the run to stop: the state is saved; launchers start it again with --resume."""

    def __init__(self) -> None:
        super().__init__(TRY_AGAIN)


def evaluated_numbers(found: Mapping[Any, Mapping[str, Any]]) -> dict[str, float]:
    """The numbers of held-out sets as `checkpoint.keep_best` names them, `modality/number`."""
    return {f"{modality}/{name}": float(numbers[name]) for modality, numbers in found.items() for name in EVALUATED}


@dataclasses.dataclass
class Run:
    """The parts of a running run, and where it stands.

    `unread` writes the row of a step whose metrics the devices may still be computing; `ready` is when they had those
    of the last row that is written; `agreed` is the signal that the hosts agreed on last.
    """

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
    unread: Callable[[], None] | None = None
    ready: float = 0.0
    agreed: int = 0

    def advance(self, **changes: Any) -> None:
        """Move the place on."""
        self.place = dataclasses.replace(self.place, **changes)

    def save(self, metrics: dict[str, float] | None = None) -> None:
        """Checkpoint the state where it stands; every row written so far belongs to it.

        `metrics` are those of the evaluation just made.
        """
        self.settle()
        self.advance(rows=self.sinks.position())
        self.checkpoints.save(self.place, self.state, metrics)

    def settle(self) -> None:
        """Write the row of the last step, when that is still to do: it waits until the step is computed."""
        unread, self.unread = self.unread, None
        if unread is not None:
            unread()

    def end_step(self, row: dict[str, Any], evidence: Evidence) -> None:
        """Write a step's row, once the place is moved on; stop at too many updates in a row without a number."""
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

    def answerer(
        self, settings: SampleSettings, what: str, between: Callable[[], None] | None = None
    ) -> Callable[[Any, PromptBatch], Rollouts]:
        """How held-out problems are answered, with the run's own seed.

        Every batch tells the stall guard of `what`; `between` is called before each, on all hosts.
        """
        key = jax.random.key(self.setup.config.seed)

        def answer(params: Any, batch: PromptBatch) -> Rollouts:
            self.guard.beat(what)
            if between is not None:
                between()
            return self.programs.sample(params, batch, settings, key)

        return answer

    def after_step(self, evaluated: dict[str, float] | None = None) -> None:
        """Checkpoint when it is due, and stop when a signal asked for it.

        `evaluated` are the numbers of held-out problems that were just asked: with `checkpoint.keep_best` this state is
        a candidate, so it is saved whatever the step. Several hosts go by what they agreed on last: asking now would
        wait for the update.
        """
        made = self.place.sft_step + self.place.grpo_step
        if jax.process_count() == 1:
            self.agree()
        signal_number = self.agreed
        section = self.setup.config.checkpoint
        candidate = section.keep_best is not None and bool(evaluated)
        if signal_number or candidate or made % section.every_steps == 0:
            self.save(evaluated)
        self._stop(signal_number)

    def stop_if_asked(self) -> None:
        """End the run, whose state was just saved, when a signal asked for it."""
        self.agree()
        self._stop(self.agreed)

    def leave_evaluation(self, written: dict[str, int]) -> None:
        """End the run inside an evaluation when a signal asked for it; a resumed run makes the evaluation again.

        `written` are the lines of each file from before the evaluation. A machine that is taken back gives less time
        than many held-out problems need.
        """
        self.agree()
        if self.agreed:
            self.advance(rows=written)
            if self.checkpoints.latest() != self.place.step:
                self.checkpoints.save(self.place, self.state)
            self._stop(self.agreed)

    def agree(self) -> None:
        """Learn which signal asked any host to stop: it may come to one a step earlier, and all must stop together."""
        self.agreed = int(largest_over_hosts(np.asarray([self.stopping[0] if self.stopping else 0]))[0])

    def _stop(self, signal_number: int) -> None:
        if signal_number:
            self.checkpoints.wait()
            made = self.place.sft_step + self.place.grpo_step
            self.progress.note(f"stopped by signal {signal_number} after step {made}; go on with --resume")
            raise Preempted
