"""Sources of problems: files are checked row by row before anything else happens; procedural sources are lazy."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from infimmr_jax.config import DataSection, SourceSection
from infimmr_jax.data.annotation import Annotated, annotated, read_captions, read_pass_rates
from infimmr_jax.data.answer_forms import FORMS
from infimmr_jax.data.columns import BY_PLACE, NOTES
from infimmr_jax.data.layouts import LAYOUTS, layout_rows, unexpected
from infimmr_jax.data.question_options import CountedFromOneError
from infimmr_jax.data.raw_records import printable
from infimmr_jax.data.records import CheckGolds, DataError, Problem
from infimmr_jax.data.rows import MAX_ID, problem_from_row, wrong_modality
from infimmr_jax.data.sequences import Selected
from infimmr_jax.data.synthetic import SyntheticSource
from infimmr_jax.names import Modality

MAX_REASON = 1_000  # characters: a reason may quote what the row has
GOLDS_AT_ONCE = 512  # rows whose answers are checked together, so that all grader processes have work


@dataclasses.dataclass(frozen=True)
class Rejected:
    """A row that can not be used: its source, its number in the file (from 1), its id where one was read, and why."""

    source: str
    row: int
    id: str | None
    reason: str

    def __post_init__(self) -> None:
        # Reports and terminals take no half of a surrogate pair, and files may hold ids and values of any length.
        object.__setattr__(self, "id", None if self.id is None else printable(self.id)[:MAX_ID])
        reason = printable(self.reason)
        object.__setattr__(self, "reason", reason if len(reason) <= MAX_REASON else f"{reason[:MAX_REASON]} ..")

    def __str__(self) -> str:
        return f"{self.source}, row {self.row}{f' ({self.id})' if self.id else ''}: {self.reason}"


class _CountsFromOne(Rejected):
    """A row that shows its file to count options from 1."""


def source_name(source: SourceSection) -> str:
    """A short name of a source for reports and messages."""
    if source.reader == "synthetic":
        return f"synthetic:{'+'.join(source.families)}:{source.style}:{source.split}"
    return str(source.path)


@dataclasses.dataclass(frozen=True)
class Reading:
    """What was read of a source: the problems, every rejected row, and how often something is worth knowing."""

    problems: Sequence[Problem]
    rejected: list[Rejected]
    notes: dict[str, int]


def read_source(
    source: SourceSection, modality: Modality, data: DataSection, golds: CheckGolds
) -> tuple[Sequence[Problem], list[Rejected]]:
    """Read one source for one modality: the problems that can be used, and every row that can not, with its reason.

    As `read_rows`, without its notes.
    """
    reading = read_rows(source, modality, data, golds)
    return reading.problems, reading.rejected


def read_rows(source: SourceSection, modality: Modality, data: DataSection, golds: CheckGolds) -> Reading:
    """Read one source for one modality, and check every row of it.

    A file is read to its end and each row checked here (see `rows.problem_from_row`), including the decoding of its
    images and, by `golds`, its answer, so that nothing can fail later; whatever one row raises rejects this row. `size`
    ends the reading once so many rows are kept. A synthetic source is a lazy sequence and has no rejected rows. Raises
    DataError when the file itself is missing, damaged or outside `data.root`.
    """
    if source.reader == "synthetic":
        if source.size is None:
            raise DataError("a synthetic source needs `size`")
        return Reading(
            SyntheticSource(source.families, source.style, source.split, source.seed, source.size, modality), [], {}
        )
    if source.reader == "tfds":
        return _read_converted(source, modality, data, golds)
    kept: list[_Row] = []
    rejected: list[Rejected] = []
    notes: Counter[str] = Counter()
    rows = _rows(source, modality, data)
    while chunk := list(itertools.islice(rows, GOLDS_AT_ONCE)):
        read = [row for row in chunk if isinstance(row, _Row)]
        complaints = iter(golds([row.problem for row in read]))
        for row in chunk:
            if isinstance(row, Rejected):
                rejected.append(row)
            elif complaint := next(complaints):
                rejected.append(Rejected(source_name(source), row.number, row.problem.id, complaint))
            else:
                kept.append(row)
                notes.update(row.notes)
            if len(kept) == source.size:
                break
        if len(kept) == source.size:
            break
    kept, late = _without_guessed_places(kept, rejected, source_name(source))
    return Reading([row.problem for row in kept], rejected + late, dict(notes))


def _without_guessed_places(kept: list[_Row], rejected: list[Rejected], name: str) -> tuple[list[_Row], list[Rejected]]:
    """Reject answers that are places of options where another row's answer is the number of its options.

    Such a file counts from 1, and the places, read from 0, are wrong.
    """
    first = next((row for row in rejected if isinstance(row, _CountsFromOne)), None)
    guessed = [row for row in kept if row.by_place] if first is not None else []
    if not guessed or first is None:
        return kept, []
    said = f"`answer` is the place of an option; row {first.row} counts options from 1, so that it can not be trusted"
    late = [Rejected(name, row.number, row.problem.id, f"{said}: give letters") for row in guessed]
    return [row for row in kept if not row.by_place], late


def below_root(name: str, data: DataSection, what: str = "path") -> Path:
    """The absolute path of a file or folder named in the configuration; it must exist below `data.root`."""
    if data.root is None:
        raise DataError(f"{what} {name!r} is a file, but `data.root` is not set: --set data.root=DIR")
    root = data.root.resolve()
    try:
        path = (root / name).resolve()
        exists = path.exists()
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"{what} {name[:200]!r} below `data.root` can not be followed: {str(error)[:300]}") from error
    if not path.is_relative_to(root):
        raise DataError(f"{what} {name[:200]!r} leads outside `data.root` ({root})")
    if not exists:
        raise DataError(f"there is no file {path} ({what} {name!r} below `data.root` {root})")
    return path


@dataclasses.dataclass(frozen=True)
class _Row:
    number: int
    problem: Problem
    notes: tuple[str, ...] = ()
    by_place: bool = False


def _rows(source: SourceSection, modality: Modality, data: DataSection) -> Iterator[_Row | Rejected]:
    """Every row of a source's file or folder, as a problem or as a rejection."""
    layout = LAYOUTS[source.reader]
    path = below_root(str(source.path), data, "source")
    if layout.is_folder != path.is_dir():
        raise DataError(f"reader {source.reader!r} reads a {'folder' if layout.is_folder else 'file'}; {path} is none")
    folder = below_root(source.images, data, "images") if source.images else path if path.is_dir() else path.parent
    captions, rates = _annotations(source, data)
    first_row: dict[str, int] = {}
    for number, row in layout_rows(layout, path):
        identity: str | None = None
        try:
            if isinstance(row, DataError):
                raise row
            identity = _identity(row)
            if identity is not None and first_row.setdefault(identity, number) != number:
                if layout.unique_ids:
                    raise DataError(f"`id` was already used in row {first_row[identity]}")
                identity = _fresh(identity, number, first_row)
                row = {
                    **row,
                    "id": identity,
                    NOTES: [*row.get(NOTES, ()), "the `id` was used before: the row is added to it"],
                }
            if identity in captions:
                row = {**row, "caption": captions[identity]}
            notes, by_place = row.get(NOTES, ()), row.get(BY_PLACE) is True
            row = {key: value for key, value in row.items() if key not in (NOTES, BY_PLACE)}
            problem = problem_from_row(row, folder, modality, data.max_images, data.image)
            problem = annotated(dataclasses.replace(problem, row=number), {}, rates)
            notes = [*notes, *(["the answer is the place of an option, counted from 0"] if by_place else [])]
            yield _Row(number, problem, tuple(notes), by_place)
        except CountedFromOneError as error:
            yield _CountsFromOne(source_name(source), number, identity, str(error))
        except DataError as error:
            yield Rejected(source_name(source), number, identity, str(error))
        except Exception as error:
            yield Rejected(source_name(source), number, identity, str(unexpected(error)))


def _fresh(identity: str, number: int, first_row: dict[str, int]) -> str:
    """An id that no row has yet, made of a used one and the row's number."""
    names = (f"{identity}-row{number}{'' if n == 1 else f'-{n}'}" for n in itertools.count(1))
    return next(name for name in names if first_row.setdefault(name, number) == number)


def _read_converted(source: SourceSection, modality: Modality, data: DataSection, golds: CheckGolds) -> Reading:
    """A source that `prepare` wrote, checked then: looked at are the modality and what the rules decide."""
    from infimmr_jax.data.tfds_builder import TfdsSource  # takes half a second to import

    stored = TfdsSource(below_root(str(source.path), data, "source"), source.split)
    problems: Sequence[Problem] = Annotated(stored, *_annotations(source, data))
    kept: list[int] = []
    rejected: list[Rejected] = []
    for index in range(len(problems)):
        identity: str | None = None
        try:
            problem = problems[index]
            identity, complaint = problem.id, wrong_modality(problem, modality, data.max_images)
            if not complaint and problem.answer_type in FORMS:
                complaint = golds([problem])[0] or ""
        except Exception as error:
            complaint = str(unexpected(error))
        if complaint:
            rejected.append(Rejected(source_name(source), index + 1, identity, complaint))
        else:
            kept.append(index)
        if len(kept) == source.size:
            break
    return Reading(Selected(problems, kept), rejected, {})


def _annotations(source: SourceSection, data: DataSection) -> tuple[dict[str, str], dict[str, dict[str, float]]]:
    captions = read_captions(below_root(source.captions, data, "captions")) if source.captions else {}
    rates = read_pass_rates(below_root(source.pass_rates, data, "pass_rates")) if source.pass_rates else {}
    return captions, rates


def _identity(row: object) -> str | None:
    value = row.get("id") if isinstance(row, dict) else None
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    try:
        return str(value)
    except ValueError:
        return None
