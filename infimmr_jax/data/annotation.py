"""Annotations beside the problems (captions, pass rates), never in the original."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, overload

from infimmr_jax.config import DataSection, SourceSection
from infimmr_jax.data.raw_records import decode_json
from infimmr_jax.data.records import DataError, Problem
from infimmr_jax.files import complete_lines
from infimmr_jax.names import JsonObject

CAPTION_REQUEST = (
    "Describe this image so that someone who can not see it could solve a problem about it. List, one a line: "
    "the kind of picture; every object, point or bar with its colour, place and label; all text and numbers as they "
    "are written; "
    "the relations between them (lengths, angles, order, what is parallel, perpendicular, equal or connected). "
    "Do not solve anything and do not guess what can not be seen."
)


def annotation_path(source: SourceSection, data: DataSection, kind: Literal["captions", "pass_rates"]) -> Path:
    """Name the file of a source's annotations: the one that its configuration names, or one beside its problems.

    `geometry3k/train.jsonl` has `geometry3k/train.captions.jsonl`. Raises DataError when it lies outside `data.root`.
    """
    if data.root is None:
        raise DataError(f"{source.path!r} is a file, but `data.root` is not set: --set data.root=DIR")
    return (data.root / annotation_name(source, data, kind)).resolve()


def annotation_name(source: SourceSection, data: DataSection, kind: Literal["captions", "pass_rates"]) -> str:
    """Give the path below `data.root` of `annotation_path`, as a configuration names it."""
    named: str | None = getattr(source, kind)
    path = str(source.path)
    base = re.sub(r"\.(jsonl|json|parquet)$", "", path) if not path.endswith("/") else path.rstrip("/")
    name = named or f"{base}.{kind}.jsonl"
    root = (data.root or Path()).resolve()
    if not (root / name).resolve().is_relative_to(root):
        raise DataError(f"{kind} {name!r} leads outside `data.root` ({root})")
    return name


def read_annotations(path: Path, key: str | None = None) -> dict[str, JsonObject]:
    """Read an annotation file by problem id; a later row wins, a last line that a kill cut short is left out.

    Raises DataError naming the row of any other line that is no object with `id` (and `key`).
    """
    rows: dict[str, JsonObject] = {}
    for number, line in enumerate(complete_lines(path), start=1):
        if not line.strip():
            continue
        try:
            row = decode_json(line)
        except DataError as error:
            raise DataError(f"{path}, row {number}: {error}") from error
        if not isinstance(row, dict) or "id" not in row or (key is not None and key not in row):
            raise DataError(f"{path}, row {number}: expected an object with `id`" + (f" and `{key}`" if key else ""))
        rows[str(row["id"])] = row
    return rows


def read_captions(path: Path) -> dict[str, str]:
    """Read captions by problem id from a file of objects with `id` and `caption`."""
    rows = read_annotations(path, "caption")
    wrong = next((name for name, row in rows.items() if not isinstance(row["caption"], str)), None)
    if wrong is not None:
        raise DataError(f"{path}: the caption of {wrong!r} is not a text")
    return {name: row["caption"] for name, row in rows.items()}


def read_pass_rates(path: Path) -> dict[str, dict[str, float]]:
    """Read `pass_rate` and, where measured, `pass_rate_text` in [0, 1] by problem id."""
    rates: dict[str, dict[str, float]] = {}
    for name, row in read_annotations(path, "pass_rate").items():
        measured = {key: row[key] for key in ("pass_rate", "pass_rate_text") if row.get(key) is not None}
        for key, value in measured.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise DataError(f"{path}: `{key}` of {name!r} is {value!r}, not a number from 0 to 1")
        rates[name] = measured
    return rates


class Annotated(Sequence[Problem]):
    """A sequence of problems with captions and pass rates put on those whose id has one.

    A pass rate p sets `level` to 1 - p and is kept in `extra`.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        captions: Mapping[str, str],
        rates: Mapping[str, Mapping[str, float]],
    ) -> None:
        self.problems, self.captions, self.rates = problems, captions, rates

    def __len__(self) -> int:
        return len(self.problems)

    @overload
    def __getitem__(self, index: int) -> Problem: ...
    @overload
    def __getitem__(self, index: slice) -> list[Problem]: ...
    def __getitem__(self, index: int | slice) -> Problem | list[Problem]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return annotated(self.problems[index], self.captions, self.rates)


def annotated(problem: Problem, captions: Mapping[str, str], rates: Mapping[str, Mapping[str, float]]) -> Problem:
    """Put its caption and pass rate on a problem, where there are some; see `Annotated`."""
    changes: JsonObject = {}
    if problem.id in captions:
        changes["caption"] = captions[problem.id]
    if problem.id in rates:
        changes["level"] = 1.0 - rates[problem.id]["pass_rate"]
        changes["extra"] = problem.extra | dict(rates[problem.id])
    return dataclasses.replace(problem, **changes) if changes else problem
