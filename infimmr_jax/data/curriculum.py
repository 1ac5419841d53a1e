"""The curriculum as one Grain dataset whose element i is optimiser step i, over all phases."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grain

from infimmr_jax.config import ConfigError, DataSection, PhaseSection, RunConfig, SourceSection
from infimmr_jax.data.records import CheckGolds, Problem
from infimmr_jax.data.selection import SourceReport, select_problems
from infimmr_jax.data.synthetic import SyntheticSource
from infimmr_jax.data.workers import WorkerIterator
from infimmr_jax.names import Modality

Encode = Callable[..., object]
Collate = Callable[..., object]
Check = Callable[..., object]


@dataclasses.dataclass(frozen=True)
class StepBatch:
    """One optimiser step's problems on this process.

    `step` counts over the whole curriculum, `step_in_phase` inside the phase; in a phase whose steps may draw several
    batches (`rollout.draws`) both count draws, and which step a batch belongs to is known when it is drawn.
    `problems`, `modalities` and `prompts` (what `encode` made of each) have one entry a row of `batch` (what `collate`
    made of the prompts).
    """

    step: int
    phase_index: int
    step_in_phase: int
    problems: list[Problem]
    modalities: list[Modality]
    prompts: list[Any]
    batch: Any


@dataclasses.dataclass(frozen=True)
class Curriculum:
    """The phases as one dataset of StepBatch, with the report of every source.

    It has an element for every draw that a step may make: one a step, unless `rollout.draws` says otherwise.
    """

    dataset: grain.MapDataset[StepBatch]
    phases: tuple[PhaseSection, ...]
    report: tuple[SourceReport, ...]
    workers: int = 0

    @property
    def total_steps(self) -> int:
        """Optimiser steps of all phases together."""
        return sum(phase.steps for phase in self.phases)

    def phase_of(self, step: int) -> int:
        """Index of the phase that a step (from 0) belongs to; the step after the last belongs to the last phase."""
        if not 0 <= step <= self.total_steps:
            raise ValueError(f"step {step} is outside the curriculum of {self.total_steps} steps")
        end = 0
        for index, phase in enumerate(self.phases):
            end += phase.steps
            if step < end:
                return index
        return len(self.phases) - 1

    def first_step(self, phase_index: int) -> int:
        """The step that a phase begins with."""
        return sum(phase.steps for phase in self.phases[:phase_index])

    def first_draw(self, phase_index: int) -> int:
        """The element of the dataset that a phase begins with."""
        return sum(draws_of(phase) for phase in self.phases[:phase_index])


def draws_of(phase: PhaseSection) -> int:
    """How many batches the steps of a phase draw at most."""
    return phase.steps * phase.rollout.draws.at_most


def build_curriculum(
    config: RunConfig,
    encode: Encode,
    collate: Collate,
    process_index: int = 0,
    process_count: int = 1,
    *,
    golds: CheckGolds,
    check: Check | None = None,
    measure: Encode | None = None,
) -> Curriculum:
    """Read, check and filter every source of every phase, and chain the phases into one random-access dataset.

    Inside a phase each source is shuffled (unless `order` says otherwise), repeated with a new order each time, mixed
    by weight, and batched. Process i gets the i-th of `process_count` equal parts of a step, so the problems of a step
    and their order do not depend on the number of processes. `encode` and `collate` run when an element is read. With
    `measure`, `collate(prompts, others)` is also given what it makes of the other processes' problems: processes that
    choose a batch's shape must choose from all of it. Before training every problem passes `check` (default: `encode`;
    a cheaper `plan_prompt` does), which rejects by raising DataError, and its gold answer passes `golds` under the
    phase's rules. `encode`, `measure` and `check` take a problem and a modality; for a phase with a prompt section of
    its own also `prompt=`.
    Raises DataError when a source is empty, ConfigError when a step can not be divided over the processes.
    """
    if not 0 <= process_index < process_count:
        raise ValueError(f"process_index {process_index} is not below process_count {process_count}")
    built: list[grain.MapDataset[StepBatch]] = []
    reports: list[SourceReport] = []
    first_step = 0
    for phase_index, phase in enumerate(config.grpo_phases):
        if phase.prompts_per_step % process_count:
            raise ConfigError(
                f"phases.{phase_index}.prompts_per_step: {phase.prompts_per_step} problems can not be divided over "
                f"{process_count} processes; use a multiple"
            )
        own = {} if phase.prompt == config.prompt else {"prompt": phase.prompt}
        encode_here: Encode = functools.partial(encode, **own)
        check_here: Check = functools.partial(check or encode, **own)
        measure_here: Encode | None = None if measure is None else functools.partial(measure, **own)
        problems, phase_reports = _mixed_problems(
            phase, phase_index, config.seed, config.data, check_here, golds.under(phase.reward)
        )
        reports += phase_reports
        batches = problems.batch(phase.prompts_per_step, batch_fn=list).slice(slice(0, draws_of(phase)))
        maker = _StepMaker(
            phase,
            phase_index,
            first_step,
            config.seed,
            encode_here,
            collate,
            process_index,
            process_count,
            measure_here,
        )
        built.append(batches.map_with_index(maker))
        first_step += draws_of(phase)
    return Curriculum(grain.MapDataset.concatenate(built), config.grpo_phases, tuple(reports), config.data.workers)


def iterate(
    curriculum: Curriculum, start: int = 0, threads: int = 1, prefetch: int = 4
) -> grain.DatasetIterator[StepBatch] | WorkerIterator[StepBatch]:
    """Iterate from element `start` (a step's number, unless steps draw several batches).

    Steps are prepared ahead by threads, or by `data.workers` processes. The iterator's state (`get_state`, `set_state`;
    saved by Orbax) is the number of the next element.
    """
    if not 0 <= start <= len(curriculum.dataset):
        raise ValueError(f"step {start} is outside the curriculum of {len(curriculum.dataset)} steps")
    if curriculum.workers:
        ahead = max(1, prefetch // curriculum.workers)
        return WorkerIterator(curriculum.dataset, start, curriculum.workers, threads, ahead)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
    iterator = iter(curriculum.dataset.to_iter_dataset(options))
    if start:
        iterator.set_state({"next_index": start})
    return iterator


def heldout(
    sources: Sequence[SourceSection],
    modality: Modality,
    count: int,
    data: DataSection,
    *,
    golds: CheckGolds,
    check: Check | None = None,
    seed: int = 0,
) -> tuple[list[Problem], list[SourceReport]]:
    """At most `count` different problems for evaluation, drawn from the sources by weight; always the same ones.

    Two problems are the same when question, caption and images are. Fewer come back only when the sources hold fewer.
    """
    reports: list[SourceReport] = []
    streams: list[Iterator[Problem]] = []
    seen: set[str] = set()
    for number, source in enumerate(sources):
        kept, report = select_problems(source, modality, data, phase="evaluation", check=check, golds=golds)
        reports.append(report)
        streams.append(_different(kept, _seed("heldout", seed, number), seen))
    problems: list[Problem] = []
    for stream, share in zip(streams, _shares([source.weight for source in sources], count), strict=True):
        problems += itertools.islice(stream, share)
    for stream in streams:  # a source that holds less than its share leaves room for the others
        problems += itertools.islice(stream, count - len(problems))
    return problems, reports


def _different(problems: Sequence[Problem], seed: int, seen: set[str]) -> Iterator[Problem]:
    for index in grain.MapDataset.source(range(len(problems))).shuffle(seed=seed):
        key = _content(problems.describe(index) if isinstance(problems, SyntheticSource) else problems[index])
        if key not in seen:
            seen.add(key)
            yield problems[index]


def _mixed_problems(
    phase: PhaseSection, phase_index: int, seed: int, data: DataSection, check: Check, golds: CheckGolds
) -> tuple[grain.MapDataset[Problem], list[SourceReport]]:
    """An endless dataset of the phase's problems."""
    datasets, reports = [], []
    for number, source in enumerate(phase.sources):
        kept, report = select_problems(
            source,
            phase.modality,
            data,
            phase=phase.name,
            filters=phase.filters,
            order=phase.order,
            check=check,
            golds=golds,
        )
        reports.append(report)
        dataset = grain.MapDataset.source(kept)
        if phase.order == "shuffle":
            dataset = dataset.shuffle(seed=_seed("shuffle", seed, phase_index, number))
        datasets.append(dataset.repeat(reseed_each_epoch=True))
    if len(datasets) == 1:
        return datasets[0], reports
    return grain.MapDataset.mix(datasets, [source.weight for source in phase.sources]), reports


@dataclasses.dataclass(frozen=True)
class _StepMaker(grain.transforms.MapWithIndex):
    """Turns the problems of a step into a StepBatch."""

    phase: PhaseSection
    phase_index: int
    first_step: int
    seed: int
    encode: Encode
    collate: Collate
    process_index: int
    process_count: int
    measure: Encode | None = None

    def map_with_index(self, index: int, problems: list[Problem]) -> StepBatch:
        part = len(problems) // self.process_count
        rows = range(self.process_index * part, (self.process_index + 1) * part)
        mine = [problems[row] for row in rows]
        modalities = [self._modality(index, row) for row in rows]
        prompts = [self.encode(problem, modality) for problem, modality in zip(mine, modalities, strict=True)]
        batch = self.collate(prompts) if self.measure is None else self.collate(prompts, self._others(index, problems))
        return StepBatch(self.first_step + index, self.phase_index, index, mine, modalities, prompts, batch)

    def _others(self, index: int, problems: list[Problem]) -> list[Any]:
        """What `measure` makes of the problems of the other processes."""
        assert self.measure is not None
        part = len(problems) // self.process_count
        others = (row for row in range(len(problems)) if row // part != self.process_index)
        return [self.measure(problems[row], self._modality(index, row)) for row in others]

    def _modality(self, index: int, row: int) -> Modality:
        """The phase's modality, or the image alone where the caption is dropped."""
        first, last = self.phase.caption_dropout
        share = first + (last - first) * index / max(1, self.phase.steps - 1)
        # Drawn from step and row, not from a generator: the same on every host and after a resumption.
        drawn = _seed("caption dropout", self.seed, self.phase_index, index, row) / 2**32
        return "image" if drawn < share else self.phase.modality


def _shares(weights: Sequence[float], count: int) -> list[int]:
    """Whole numbers that add up to `count`, in proportion to the weights (largest remainders first)."""
    exact = [count * weight / sum(weights) for weight in weights]
    shares = [int(value) for value in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: shares[i] - exact[i])
    for i in by_remainder[: count - sum(shares)]:
        shares[i] += 1
    return shares


def _content(problem: Problem) -> str:
    # A procedural problem is described without its picture: two drawings of one scene differ in every pixel.
    pictures = [x if isinstance(x, str) else hashlib.sha256(x).hexdigest() for x in problem.images]
    return repr((problem.question, problem.choices, problem.caption, pictures))


def _seed(*parts: object) -> int:
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=4).digest(), "little")
