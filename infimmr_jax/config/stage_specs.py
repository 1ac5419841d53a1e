"""The stages of a run in their order: those of the cold start, then the phases."""

from __future__ import annotations

import dataclasses

from infimmr_jax.config.data import PhaseSection
from infimmr_jax.config.sections import RunSections


@dataclasses.dataclass(frozen=True)
class StageSpec:
    """One stage of a run, by the section that describes it.

    `number` is its place among the sections of its kind (`config.grpo_phases`, `config.demonstrations`), `first` the
    steps that earlier stages make of the same schedule and data, `part` its place among the stages of its section,
    `after` the kind of the stage before ("" at the start).
    """

    kind: str
    name: str
    steps: int
    number: int
    first: int = 0
    part: int = 0
    after: str = ""


def stage_lengths(config: RunSections) -> tuple[int, ...]:
    """Return the planned steps of every stage; without a cold start the first is the start itself, of no steps."""
    specs = stage_specs(config)
    lengths = tuple(spec.steps for spec in specs)
    return lengths if specs[0].kind == "sft" else (0, *lengths)


def stage_specs(config: RunSections) -> tuple[StageSpec, ...]:
    """Return every stage of the run."""
    specs: list[StageSpec] = []

    def add(kind: str, name: str, steps: int, number: int, first: int, part: int = 0) -> None:
        specs.append(StageSpec(kind, name, steps, number, first, part, specs[-1].kind if specs else ""))

    sets = phases = made = 0
    for section in (config.sft, *config.phases):
        if isinstance(section, PhaseSection):
            add("grpo", section.name, section.steps, phases, made)
            phases, made = phases + 1, made + section.steps
        elif section is not None:
            first = 0
            for part, stage in enumerate(section.stages):
                add("sft", stage.name, stage.steps, sets, first, part)
                first += stage.steps
            sets += 1
    return tuple(specs)
