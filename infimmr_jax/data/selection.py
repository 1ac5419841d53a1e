"""Which problems of a source a phase uses, and in which order: decided once, when the source is built."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from infimmr_jax.config import DataSection, FilterSection, SourceSection
from infimmr_jax.data.captions import leaks_answer
from infimmr_jax.data.layouts import unexpected
from infimmr_jax.data.readers import Rejected, read_rows, source_name
from infimmr_jax.data.records import CheckGolds, DataError, Problem
from infimmr_jax.data.sequences import Selected
from infimmr_jax.data.synthetic import SyntheticSource
from infimmr_jax.names import JsonObject, Modality

Order = Literal["shuffle", "file", "easy_to_hard"]

NO_FILTERS = FilterSection()
PROBED = 64  # problems of a procedural source that are encoded before training: each family shows its longest early


@dataclasses.dataclass(frozen=True)
class SourceReport:
    """What became of one source: rows read, problems kept, how many each filter left out, and every rejected row.

    `flagged` are ids of problems that were kept although something about them deserves a look, by reason; `notes` says
    how often the reader took a column for something else than its name says, or left it aside; `digest` is one of the
    ids of the kept problems in their order ("" where they are made as they are needed).
    """

    phase: str
    source: str
    read: int
    kept: int
    filtered: dict[str, int]
    rejected: tuple[Rejected, ...]
    flagged: dict[str, list[str]]
    notes: dict[str, int] = dataclasses.field(default_factory=dict)
    digest: str = ""

    def __str__(self) -> str:
        left_out = "".join(f", {count} left out: {why}" for why, count in self.filtered.items())
        flags = "".join(f", {len(ids)} flagged: {why}" for why, ids in self.flagged.items())
        notes = "".join(f"; {count} rows: {what}" for what, count in self.notes.items())
        losses = f"{self.kept} kept, {len(self.rejected)} rejected{left_out}{flags}{notes}"
        return f"{self.phase}: {self.source}: {self.read} rows, {losses}"

    def to_dict(self) -> JsonObject:
        """Plain values for JSON."""
        return dataclasses.asdict(self)


def select_problems(
    source: SourceSection,
    modality: Modality,
    data: DataSection,
    *,
    phase: str,
    golds: CheckGolds,
    filters: FilterSection = NO_FILTERS,
    order: Order = "shuffle",
    check: Callable[[Problem, Modality], object] | None = None,
) -> tuple[Sequence[Problem], SourceReport]:
    """Read a source, drop what `golds`, the filters or `check` refuse, and order the rest; report every loss.

    `check` raises DataError for a problem that can not become a prompt (too long, too many images). Every row of a
    file passes it; of a procedural source the first 64 do, where a failure is an error of the configuration.
    "easy_to_hard" sorts by `level`, problems without a level last. Raises DataError when nothing is left.
    """
    reading = read_rows(source, modality, data, golds)
    problems, rejected = reading.problems, reading.rejected
    lazy = isinstance(problems, SyntheticSource)
    filtered: Counter[str] = Counter()
    levels: list[tuple[int, float | None]] = []
    ids: dict[int, str] = {}
    late: list[Rejected] = []
    flagged: dict[str, list[str]] = {}
    for index in range(len(problems)) if not lazy or _looks_inside(filters, order) else ():
        problem = problems.describe(index) if isinstance(problems, SyntheticSource) else problems[index]
        try:
            reason = left_out(problem, filters)
            if not reason and not lazy and check is not None:
                check(problem, modality)
        except Exception as error:
            if lazy:
                raise
            said = str(error if isinstance(error, DataError) else unexpected(error))
            late.append(Rejected(source_name(source), problem.row or index + 1, problem.id, said))
            continue
        if reason:
            filtered[reason] += 1
            continue
        if not lazy and modality == "caption" and leaks_answer(problem):
            flagged.setdefault("the caption holds the answer verbatim", []).append(problem.id)
        levels.append((index, problem.level))
        ids[index] = problem.id
    if order == "easy_to_hard":
        levels.sort(key=lambda item: (item[1] is None, item[1] or 0.0))
    whole = lazy and not _looks_inside(filters, order)
    kept: Sequence[Problem] = problems if whole else Selected(problems, [index for index, _ in levels])
    losses = tuple(sorted((*rejected, *late), key=lambda loss: loss.row))
    read = len(problems) + len(rejected)
    digest = "" if whole else ids_digest(ids[index] for index, _ in levels)
    counts = read, len(kept), dict(filtered)
    report = SourceReport(phase, source_name(source), *counts, losses, flagged, reading.notes, digest)
    if not kept:
        first = f"; the first rejected: {losses[0]}" if losses else ""
        raise DataError(f"no problem is left ({report}){first}")
    if lazy and check is not None:
        for index in range(min(PROBED, len(kept))):
            check(kept[index], modality)
    return kept, report


def ids_digest(ids: Iterable[str]) -> str:
    """A digest of ids in their order, 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for name in ids:
        data = name.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:16]


def left_out(problem: Problem, filters: FilterSection) -> str:
    """The filter that leaves a problem out, as a short reason; empty when it stays."""
    if filters.answer_types is not None and problem.answer_type not in filters.answer_types:
        return f"answer_type {problem.answer_type} is not in filters.answer_types"
    rate, blind = problem.extra.get("pass_rate"), problem.extra.get("pass_rate_text")
    gap = None if rate is None or blind is None else rate - blind
    bounds = (
        ("level", problem.level, filters.min_level, filters.max_level),
        ("pass rate", rate, filters.min_pass_rate, filters.max_pass_rate),
        ("image gap", gap, filters.min_image_gap, None),
    )
    for name, value, least, most in bounds:
        if least is None and most is None:
            continue
        if value is None:
            return f"no {name}, but the phase filters by it"
        if least is not None and value < least:
            return f"{name} below {least:g}"
        if most is not None and value > most:
            return f"{name} above {most:g}"
    return ""


def _looks_inside(filters: FilterSection, order: Order) -> bool:
    return filters != NO_FILTERS or order == "easy_to_hard"
