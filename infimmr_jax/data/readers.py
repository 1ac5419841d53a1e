"""Sources of problems: files are checked row by row before anything else happens; procedural sources are lazy."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from infimmr_jax.config import DataSection, SourceSection
from infimmr_jax.data.annotation import Annotated, annotated, read_captions, read_pass_rates
from infimmr_jax.data.answer_forms import FORMS
from infimmr_jax.data.layouts import LAYOUTS, layout_rows
from infimmr_jax.data.records import CheckGolds, DataError, Problem
from infimmr_jax.data.rows import problem_from_row, wrong_modality
from infimmr_jax.data.sequences import Selected
from infimmr_jax.data.synthetic import SyntheticSource
from infimmr_jax.names import Modality

GOLDS_AT_ONCE = 512  # rows whose answers are checked together, so that all grader processes have work


@dataclasses.dataclass(frozen=True)
class Rejected:
    """A row that can not be used: its source, its number in the file (from 1), its id where one was read, and why."""

    source: str
    row: int
    id: str | None
    reason: str

    def __str__(self) -> str:
        return f"{self.source}, row {self.row}{f' ({self.id})' if self.id else ''}: {self.reason}"


def source_name(source: SourceSection) -> str:
    """A short name of a source for reports and messages."""
    if source.reader == "synthetic":
        return f"synthetic:{'+'.join(source.families)}:{source.style}:{source.split}"
    return str(source.path)


def read_source(
    source: SourceSection, modality: Modality, data: DataSection, golds: CheckGolds
) -> tuple[Sequence[Problem], list[Rejected]]:
    """Read one source for one modality: the problems that can be used, and every row that can not, with its reason.

    A file is read whole and each row checked here (see `rows.problem_from_row`), including the decoding of its
    images and, by `golds`, its answer, so that nothing can fail later; `size` ends the reading once so many rows are
    kept. A synthetic source is a lazy sequence and has no rejected rows. Raises DataError when the file itself is
    missing or outside `data.root`.
    """
    if source.reader == "synthetic":
        if source.size is None:
            raise DataError("a synthetic source needs `size`")
        made = SyntheticSource(source.families, source.style, source.split, source.seed, source.size, modality)
        return made, []
    if source.reader == "tfds":
        return _read_converted(source, modality, data, golds)
    problems: list[Problem] = []
    rejected: list[Rejected] = []
    rows = _rows(source, modality, data)
    while chunk := list(itertools.islice(rows, GOLDS_AT_ONCE)):
        read = [row for row in chunk if isinstance(row, _Row)]
        complaints = {row.number: said for row, said in zip(read, golds([row.problem for row in read]), strict=True)}
        for row in chunk:
            if isinstance(row, Rejected):
                rejected.append(row)
            elif complaint := complaints[row.number]:
                rejected.append(Rejected(source_name(source), row.number, row.problem.id, complaint))
            else:
                problems.append(row.problem)
            if source.size is not None and len(problems) == source.size:
                return problems, rejected
    return problems, rejected


def below_root(name: str, data: DataSection, what: str = "path") -> Path:
    """The absolute path of a file or folder named in the configuration; it must exist below `data.root`."""
    if data.root is None:
        raise DataError(f"{what} {name!r} is a file, but `data.root` is not set: --set data.root=DIR")
    root = data.root.resolve()
    path = (root / name).resolve()
    if not path.is_relative_to(root):
        raise DataError(f"{what} {name!r} leads outside `data.root` ({root})")
    if not path.exists():
        raise DataError(f"there is no file {path} ({what} {name!r} below `data.root` {root})")
    return path


@dataclasses.dataclass(frozen=True)
class _Row:
    number: int
    problem: Problem


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
                raise DataError(f"`id` was already used in row {first_row[identity]}")
            if identity in captions:
                row = {**row, "caption": captions[identity]}
            problem = problem_from_row(row, folder, modality, data.max_images, data.image)
            yield _Row(number, annotated(dataclasses.replace(problem, row=number), {}, rates))
        except DataError as error:
            yield Rejected(source_name(source), number, identity, str(error))


def _read_converted(
    source: SourceSection, modality: Modality, data: DataSection, golds: CheckGolds
) -> tuple[Sequence[Problem], list[Rejected]]:
    """A source that `prepare` wrote, checked then: looked at are the modality and what the rules decide."""
    from infimmr_jax.data.tfds_builder import TfdsSource  # takes half a second to import

    stored = TfdsSource(below_root(str(source.path), data, "source"), source.split)
    problems: Sequence[Problem] = Annotated(stored, *_annotations(source, data))
    kept: list[int] = []
    rejected: list[Rejected] = []
    for index, problem in enumerate(problems):
        complaint = wrong_modality(problem, modality, data.max_images)
        if not complaint and problem.answer_type in FORMS:
            complaint = golds([problem])[0] or ""
        if complaint:
            rejected.append(Rejected(source_name(source), index + 1, problem.id, complaint))
        else:
            kept.append(index)
        if len(kept) == source.size:
            break
    return Selected(problems, kept), rejected


def _annotations(source: SourceSection, data: DataSection) -> tuple[dict[str, str], dict[str, dict[str, float]]]:
    captions = read_captions(below_root(source.captions, data, "captions")) if source.captions else {}
    rates = read_pass_rates(below_root(source.pass_rates, data, "pass_rates")) if source.pass_rates else {}
    return captions, rates


def _identity(row: Any) -> str | None:
    value = row.get("id") if isinstance(row, dict) else None
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    try:
        return str(value)
    except ValueError:
        return None
