"""Sources of problems: files are checked row by row before anything else happens; procedural sources are lazy."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infimmr_jax.config import DataSection, Modality, SourceSection
from infimmr_jax.data.records import DataError, Problem
from infimmr_jax.data.rows import problem_from_row
from infimmr_jax.data.synthetic import SyntheticSource


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
    source: SourceSection, modality: Modality, data: DataSection
) -> tuple[Sequence[Problem], list[Rejected]]:
    """Read one source for one modality: the problems that can be used, and every row that can not, with its reason.

    A file is read whole and each row checked here (see `rows.problem_from_row`), including the decoding of its
    images, so that nothing can fail later. A synthetic source is a lazy sequence and has no rejected rows. Raises
    DataError when the file itself is missing or outside `data.root`.
    """
    if source.reader == "synthetic":
        if source.size is None:
            raise DataError("a synthetic source needs `size`")
        made = SyntheticSource(source.families, source.style, source.split, source.seed, source.size, modality)
        return made, []
    path = _file_below_root(source, data)
    problems: list[Problem] = []
    rejected: list[Rejected] = []
    first_row: dict[str, int] = {}
    name = source_name(source)
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            identity: str | None = None
            try:
                row = _decode(line)
                identity = _identity(row)
                if identity is not None and identity in first_row:
                    raise DataError(f"`id` {identity!r} was already used in row {first_row[identity]}")
                problem = problem_from_row(row, path.parent, modality, data.max_images, data.image)
            except DataError as error:
                rejected.append(Rejected(name, number, identity, str(error)))
                continue
            finally:
                if identity is not None:
                    first_row.setdefault(identity, number)
            problems.append(problem)
            if source.size is not None and len(problems) == source.size:
                break
    return problems, rejected


def _file_below_root(source: SourceSection, data: DataSection) -> Path:
    if data.root is None:
        raise DataError(f"source {source.path!r} is a file, but `data.root` is not set: --set data.root=DIR")
    root = data.root.resolve()
    path = (root / str(source.path)).resolve()
    if not path.is_relative_to(root):
        raise DataError(f"source {source.path!r} leads outside `data.root` ({root})")
    if not path.is_file():
        raise DataError(f"there is no file {path} (source {source.path!r} below `data.root` {root})")
    return path


def _decode(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(f"the line is not valid UTF-8 (byte {error.start} of the line)") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"the line is not valid JSON: {error}") from error
    except ValueError as error:  # a whole number of more than 4,300 digits
        raise DataError(f"the line holds a value that can not be read: {error}") from error


def _identity(row: Any) -> str | None:
    value = row.get("id") if isinstance(row, dict) else None
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    try:
        return str(value)
    except ValueError:
        return None
