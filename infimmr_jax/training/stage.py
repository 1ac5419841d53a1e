"""What a stage of a run is: it begins, has batches, makes steps, and may end before its time."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, Protocol, runtime_checkable

import jax
from jaxtyping import PyTree

from infimmr_jax.config import StageSpec
from infimmr_jax.data.records import Problem
from infimmr_jax.names import JsonObject, Modality
from infimmr_jax.objectives.train_state import TrainState
from infimmr_jax.rewards.pool import GraderPool
from infimmr_jax.training.guards import Evidence
from infimmr_jax.training.place import Memory
from infimmr_jax.training.programs import Compilations, Programs
from infimmr_jax.training.setup import Setup
from infimmr_jax.training.sinks import Sinks

Row = JsonObject
# Numbers of held-out problems of a modality, by the policy as it is now.
Measure = Callable[[Modality, Sequence[Problem]], JsonObject]


@dataclasses.dataclass(frozen=True)
class StageInputs:
    """What every stage works with.

    `say` prints a line, `agree` lets the hosts learn of each other's signals: call it where they wait anyway.
    """

    setup: Setup
    programs: Programs
    pool: GraderPool
    sinks: Sinks
    compilations: Compilations
    say: Callable[[str], None]
    agree: Callable[[], None]


@runtime_checkable
class Batches(Protocol):
    """An iterator over a stage's batches whose state is a place to go on from."""

    def __iter__(self) -> Iterator[Any]: ...
    def __next__(self) -> PyTree: ...
    def get_state(self) -> JsonObject: ...


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What a stage says after a step: what it remembers, what the step's row also holds, whether the stage is over.

    `heldout` are numbers of held-out problems by modality, where they were measured.
    """

    memory: Memory
    numbers: Row = dataclasses.field(default_factory=dict)
    ended: bool = False
    heldout: dict[Modality, JsonObject] = dataclasses.field(default_factory=dict)


@runtime_checkable
class Stage(Protocol):
    """One stage of a run; rows of the table in `training.stages` make them."""

    @property
    def spec(self) -> StageSpec: ...

    def begin(self, state: TrainState) -> TrainState:
        """Fresh moments, a reference policy, what trains: called before the first step; `state` is donated."""

    def batches(self, step: int, data: JsonObject | None) -> Batches:
        """Batches from step `step` of the stage on; `data` is the iterator's state there, None where not known."""

    def step(
        self, state: TrainState, batches: Batches, step: int, meanwhile: Callable[[], float]
    ) -> tuple[TrainState, Pending]:
        """Make step `step` of the stage; `state` is donated.

        `meanwhile` writes what is still to be said of the step before: it is called as soon as the devices have work,
        and returns when (by `time.monotonic`) they had finished that step.
        """

    def judge(self, pending: Pending, step: int, memory: Memory, measure: Measure) -> Judgement:
        """Look at the step just made."""


@dataclasses.dataclass
class Pending:
    """A step whose update may still be computed: its row, without what `metrics` will tell; times by the clock.

    `tokens` are those the step was about; None: the metric `rollout/tokens`.
    """

    row: Row
    metrics: dict[str, jax.Array]
    evidence: Evidence
    began: float
    updated: float
    tokens: float | None = None
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

    def finished(self) -> tuple[Row, float]:
        """The whole row, and when the devices had computed it."""
        numbers, ready = self.read(), self._ready.result()
        seconds = ready - self.began
        tokens = numbers["rollout/tokens"] if self.tokens is None else self.tokens
        times = {"time/update": ready - self.updated, "time/step": seconds, "tokens_per_second": tokens / seconds}
        return self.row | numbers | times, ready


def _stamp(arrays: PyTree, ready: Future[float]) -> None:
    # An error of the devices is raised where the arrays are read.
    with contextlib.suppress(Exception):
        jax.block_until_ready(arrays)
    ready.set_result(time.monotonic())


class DuePending(Pending):
    """A step whose whole row an earlier process already had; only what is said after it is still to do."""

    def __init__(self, row: Row):
        super().__init__(row, {}, lambda: ({}, {}), 0.0, 0.0)

    def read(self) -> dict[str, float]:
        return self.row

    def finished(self) -> tuple[Row, float]:
        return self.row, 0.0


START = StageSpec("start", "start", 0, 0)


@dataclasses.dataclass(frozen=True)
class Start:
    """The stage before all others where there is no cold start: no step, only the evaluation of what is given."""

    spec: StageSpec = START


__all__ = ["Batches", "DuePending", "Judgement", "Measure", "Pending", "Row", "Stage", "StageInputs", "Start"]
