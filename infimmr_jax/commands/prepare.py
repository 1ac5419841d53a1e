"""`prepare`: check, curate and convert the sources of a run configuration; the originals are only read."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar, cast

from infimmr_jax.commands.prepare_report import Sample, SourceSummary, as_markdown, histogram, note_lines
from infimmr_jax.config import (
    DataSection,
    EvaluationSection,
    PhaseSection,
    RewardSection,
    RunConfig,
    SftPhaseSection,
    SftSection,
    SourceSection,
    dump_config,
)
from infimmr_jax.data.captions import leaks_answer
from infimmr_jax.data.curation import Dropped, Embed, balanced, find_contaminated, find_duplicates
from infimmr_jax.data.pictures import image_size
from infimmr_jax.data.readers import Rejected, read_rows, read_source, source_name
from infimmr_jax.data.records import DataError, Problem
from infimmr_jax.data.tfds_builder import VERSION, InfimmrProblems, write_tfds
from infimmr_jax.names import JsonObject, Modality
from infimmr_jax.rewards.golds import GoldCheck
from infimmr_jax.rewards.pool import GraderPool

MODALITIES: tuple[Modality, ...] = ("text", "caption", "image")

AnySection = TypeVar("AnySection", bound=PhaseSection | SftPhaseSection | SftSection | EvaluationSection)


@dataclasses.dataclass
class _Source:
    """A source file or folder of the configuration, used under some modalities, with what became of its rows."""

    section: SourceSection
    slug: str
    modalities: list[Modality]
    reward: RewardSection
    is_benchmark: bool = False
    problems: list[Problem] = dataclasses.field(default_factory=list)
    rejected: list[tuple[str, Rejected]] = dataclasses.field(default_factory=list)
    rows: int = 0
    duplicates: list[Dropped] = dataclasses.field(default_factory=list)
    contaminated: list[Dropped] = dataclasses.field(default_factory=list)
    surplus: int = 0
    notes: dict[str, int] = dataclasses.field(default_factory=dict)
    samples: list[Sample] = dataclasses.field(default_factory=list)

    @property
    def path(self) -> str:
        return f"{InfimmrProblems.name}/{self.slug}/{VERSION}"


def prepare(
    config: RunConfig,
    output: Path,
    pool: GraderPool | None = None,
    embed: Embed | None = None,
    progress: Callable[[str], None] | None = None,
) -> list[SourceSummary]:
    """Convert every file source of the configuration's phases and evaluation into ArrayRecord files below `output`.

    Every row is checked as before training; repetitions over all sources and copies of evaluation and benchmark
    problems are left out of training sources by `data.curation`, then the excess of a source or subject. Written are
    one TFDS directory a source, `report.json` and `report.md` (every dropped row with its reason), and `config.yaml`,
    the same run on the converted sources. Procedural sources stay as they are. Raises DataError when `output` is not
    empty, when a source is left without a problem, or when `image_cosine` is set without `embed`.
    """
    say = progress or (lambda message: None)
    curation = config.data.curation
    if curation.image_cosine is not None and embed is None:
        raise DataError("data.curation.image_cosine compares pictures by a vision tower, but no model was given")
    if output.exists() and any(output.iterdir()):
        raise DataError(f"{output} is not empty; choose another output folder or remove it")
    sources = _sources(config)
    golds = GoldCheck(pool)
    for source in sources:
        say(f"reading {source_name(source.section)}")
        _read(source, config.data, golds)
        source.samples = samples(source.problems, config.data)
        for line in (*map(str, source.samples), *note_lines(source.notes)):
            say(f"  {line}")
    training = [source for source in sources if not source.is_benchmark]
    reference = [p for source in sources if source.is_benchmark for p in source.problems]
    reference += _benchmarks(config.data, golds, say)
    say("looking for repetitions and copies")
    _curate(training, reference, config.data, embed, config.seed)
    for source in sources:
        if not source.problems:
            first = f"; the first rejected: {source.rejected[0][1]}" if source.rejected else ""
            raise DataError(f"no problem of {source_name(source.section)} is left{first}")
    for source in sources:
        say(f"writing {source.slug}")
        write_tfds({source.section.split: _giver(source.problems)}, output, source.slug)
    summaries = [_summary(source) for source in sources]
    report = {"reference_problems": len(reference), "sources": [summary.to_dict() for summary in summaries]}
    (output / "report.json").write_text(json.dumps(report, ensure_ascii=False, indent=1), encoding="utf-8")
    (output / "report.md").write_text(as_markdown(summaries, len(reference)), encoding="utf-8")
    (output / "config.yaml").write_text(dump_config(_converted(config, sources, output)), encoding="utf-8")
    return summaries


def samples(problems: Sequence[Problem], data: DataSection) -> list[Sample]:
    """The first, the middle and the last problem, as a person should see them before training on thousands."""
    places = sorted({0, len(problems) // 2, len(problems) - 1}) if problems else []
    return [
        Sample(
            problem.row or place + 1,
            problem.id,
            problem.question,
            problem.answer,
            problem.answer_type,
            list(problem.choices),
            [f"{width} x {height}" for width, height in (image_size(image, data.image) for image in problem.images)],
        )
        for place, problem in ((place, problems[place]) for place in places)
    ]


def _sources(config: RunConfig) -> list[_Source]:
    """Each different file source once, with the modalities it is used under and the rules of its first use."""
    run = config.reward
    used: list[tuple[SourceSection, Modality, RewardSection, bool]] = [
        (source, phase.modality, phase.reward, False) for phase in config.grpo_phases for source in phase.sources
    ]
    for given in (*config.demonstrations, config.evaluation):
        is_benchmark, sources = given is config.evaluation, given.sources
        used += [(source, name, run, is_benchmark) for name, several in sources.items() for source in several]
    found: dict[str, _Source] = {}
    for section, modality, reward, is_benchmark in used:
        if section.reader == "synthetic":
            continue
        source = found.setdefault(_key(section), _Source(section, _slug(section, found), [], reward, is_benchmark))
        if modality not in source.modalities:
            source.modalities.append(modality)
        if source.is_benchmark != is_benchmark:
            raise DataError(f"{source_name(section)} is a source of training and of evaluation at once; split it")
    if not found:
        raise DataError("the configuration has no file source to prepare; procedural sources need none")
    return list(found.values())


def _key(section: SourceSection) -> str:
    return section.model_copy(update={"weight": 1.0, "seed": 0}).model_dump_json()


def _slug(section: SourceSection, found: dict[str, _Source]) -> str:
    base = re.sub(r"[^a-z0-9]+", "_", str(section.path).lower().rsplit(".", 1)[0]).strip("_") or "source"
    taken = {source.slug for source in found.values()}
    return next(name for name in _numbered(base) if name not in taken)


def _numbered(base: str) -> Iterator[str]:
    yield base
    number = 2
    while True:
        yield f"{base}_{number}"
        number += 1


def _read(source: _Source, data: DataSection, golds: GoldCheck) -> None:
    """Rows that fit any of the source's modalities, in the file's order, each once."""
    for modality in source.modalities:
        reading = read_rows(source.section, modality, data, golds.under(source.reward))
        kept, rejected = reading.problems, reading.rejected
        source.notes |= {what: max(count, source.notes.get(what, 0)) for what, count in reading.notes.items()}
        source.rejected += [(modality, row) for row in rejected]
        source.rows = max(source.rows, len(kept) + len(rejected))
        known = {problem.id: n for n, problem in enumerate(source.problems)}
        new = [problem for problem in kept if problem.id not in known]
        # A caption phase's problem carries its caption; the image phase's copy of it is the same problem.
        source.problems = _merged(source.problems, list(kept), new)


def _merged(first: list[Problem], second: list[Problem], new: list[Problem]) -> list[Problem]:
    """`first` with the new problems put in behind the problem they follow in `second`."""
    if not first:
        return second
    fresh = {problem.id for problem in new}
    known = {problem.id for problem in first}
    followers: dict[str | None, list[Problem]] = {}
    anchor: str | None = None
    for problem in second:
        if problem.id in fresh:
            followers.setdefault(anchor, []).append(problem)
        elif problem.id in known:
            anchor = problem.id
    merged = list(followers.get(None, []))
    for problem in first:
        merged += [problem, *followers.get(problem.id, [])]
    return merged


def _benchmarks(data: DataSection, golds: GoldCheck, say: Callable[[str], None]) -> list[Problem]:
    problems: list[Problem] = []
    for section in data.curation.benchmarks:
        say(f"reading benchmark {source_name(section)}")
        seen: set[str] = set()
        for modality in ("text", "image"):
            for problem in read_source(section, modality, data, golds)[0]:
                if problem.id not in seen:
                    seen.add(problem.id)
                    problems.append(problem)
        if not seen:
            raise DataError(f"benchmark {source_name(section)} has no readable problem")
    return problems


def _curate(
    sources: Sequence[_Source], reference: Sequence[Problem], data: DataSection, embed: Embed | None, seed: int
) -> None:
    """Remove from every source what curation leaves out of all of them together."""
    curation, limits = data.curation, data.image
    everything = [(source, problem) for source in sources for problem in source.problems]
    problems = [problem for _, problem in everything]
    copies = find_contaminated(problems, reference, curation, limits, embed) if reference else {}
    rest = [n for n in range(len(problems)) if n not in copies]
    repeated = find_duplicates([problems[n] for n in rest], curation, limits)
    repetitions = {rest[n]: dropped for n, dropped in repeated.items()}
    kept = [n for n in rest if n not in repetitions]
    if curation.balance_by is not None and curation.balance_at_most is not None:
        chosen = balanced([problems[n] for n in kept], curation.balance_at_most, curation.balance_by, seed)
        kept = [kept[n] for n in chosen]
    for source in sources:
        source.problems = []
    for n, dropped in copies.items():
        everything[n][0].contaminated.append(dropped)
    for n, dropped in repetitions.items():
        everything[n][0].duplicates.append(dropped)
    for n in set(rest) - set(repetitions) - set(kept):
        everything[n][0].surplus += 1
    for n in kept:
        everything[n][0].problems.append(problems[n])


def _summary(source: _Source) -> SourceSummary:
    problems = source.problems
    return SourceSummary(
        source=source_name(source.section),
        path=source.path,
        split=source.section.split,
        modalities=list(source.modalities),
        rows=source.rows,
        kept=len(problems),
        rejected=[
            {"modality": modality, "row": row.row, "id": row.id, "reason": row.reason}
            for modality, row in source.rejected
        ],
        duplicates=[dataclasses.asdict(dropped) for dropped in source.duplicates],
        contaminated=[dataclasses.asdict(dropped) for dropped in source.contaminated],
        surplus=source.surplus,
        leaking_captions=[problem.id for problem in problems if leaks_answer(problem)],
        answer_types=histogram(problem.answer_type for problem in problems),
        subjects=histogram(problem.subject for problem in problems),
        levels=histogram(None if problem.level is None else f"{problem.level:g}" for problem in problems),
        images=histogram(str(len(problem.images)) for problem in problems),
        notes=source.notes,
        samples=[dataclasses.asdict(sample) for sample in source.samples],
        captioned=sum(problem.caption is not None for problem in problems),
    )


def _converted(config: RunConfig, sources: Sequence[_Source], output: Path) -> RunConfig:
    """The configuration with every file source replaced by its converted form, and `data.root` the output folder."""
    places = {_key(source.section): source.path for source in sources}

    def replaced(section: SourceSection) -> SourceSection:
        if section.reader == "synthetic":
            return section
        return SourceSection(
            reader="tfds", path=places[_key(section)], split=section.split, seed=section.seed, weight=section.weight
        )

    def all_of(sections: Sequence[SourceSection]) -> tuple[SourceSection, ...]:
        return tuple(replaced(section) for section in sections)

    def with_replaced(section: AnySection) -> AnySection:
        given = section.sources
        if isinstance(given, dict):
            given = {name: all_of(group) for name, group in given.items()}
            return cast(AnySection, section.model_copy(update={"sources": given}))
        return cast(AnySection, section.model_copy(update={"sources": all_of(given)}))

    changes: JsonObject = {
        "data": config.data.model_copy(
            update={
                "root": output.resolve(),
                # What was curated once is not curated again, and the benchmarks are not below the new root.
                "curation": config.data.curation.model_copy(update={"benchmarks": (), "image_cosine": None}),
            }
        ),
        "phases": tuple(map(with_replaced, config.phases)),
        "evaluation": with_replaced(config.evaluation),
        "sft": None if config.sft is None else with_replaced(config.sft),
    }
    return config.model_copy(update=changes)


def _giver(problems: Sequence[Problem]) -> Callable[[], Sequence[Problem]]:
    return lambda: problems
