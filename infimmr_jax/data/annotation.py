"""Annotations beside the problems (captions, pass rates): appended batch by batch, resumable, never in the original."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, overload

import numpy as np
from jaxtyping import Bool

from infimmr_jax.config import DataSection, SourceSection
from infimmr_jax.data.raw_records import decode_json
from infimmr_jax.data.records import DataError, Problem

CAPTION_REQUEST = (
    "Describe this image so that someone who can not see it could solve a problem about it. List, one a line: "
    "the kind of picture; every object, point or bar with its colour, place and label; all text and numbers as they "
    "are written; "
    "the relations between them (lengths, angles, order, what is parallel, perpendicular, equal or connected). "
    "Do not solve anything and do not guess what can not be seen."
)


def annotation_path(source: SourceSection, data: DataSection, kind: Literal["captions", "pass_rates"]) -> Path:
    """Where a source's annotations are kept: the file that its configuration names, or one beside its problems.

    `geometry3k/train.jsonl` has `geometry3k/train.captions.jsonl`. Raises DataError when it lies outside `data.root`.
    """
    if data.root is None:
        raise DataError(f"{source.path!r} is a file, but `data.root` is not set: --set data.root=DIR")
    return (data.root / annotation_name(source, data, kind)).resolve()


def annotation_name(source: SourceSection, data: DataSection, kind: Literal["captions", "pass_rates"]) -> str:
    """The path below `data.root` of `annotation_path`, as a configuration names it."""
    named: str | None = getattr(source, kind)
    path = str(source.path)
    base = re.sub(r"\.(jsonl|json|parquet)$", "", path) if not path.endswith("/") else path.rstrip("/")
    name = named or f"{base}.{kind}.jsonl"
    root = (data.root or Path()).resolve()
    if not (root / name).resolve().is_relative_to(root):
        raise DataError(f"{kind} {name!r} leads outside `data.root` ({root})")
    return name


def annotate(
    problems: Sequence[Problem],
    path: Path,
    make: Callable[[Sequence[Problem]], Sequence[Mapping[str, Any]]],
    batch_size: int,
    progress: Callable[[int], None] | None = None,
    agree: Callable[[Bool[np.ndarray, "problems"]], Bool[np.ndarray, "problems"]] | None = None,
    writes: bool = True,
) -> int:
    """Append one JSON line with `id` and what `make` returns for every problem that `path` does not have yet.

    A kill loses at most the batch under way: run it again. `progress` is told how many problems each batch finished.
    Of several processes that call this together one `writes`, and `agree` gives all of them its list of what is done.
    Returns how many were made. Raises DataError when `make` returns another number than it was given.
    """
    done = read_annotations(path) if path.exists() else {}
    known = np.array([problem.id in done for problem in problems], bool)
    known = known if agree is None else agree(known)
    missing = [problem for problem, is_known in zip(problems, known, strict=True) if not is_known]
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(_appendable(path)) if writes else None
        for start in range(0, len(missing), batch_size):
            batch = missing[start : start + batch_size]
            made = make(batch)
            if len(made) != len(batch):
                raise DataError(f"{len(made)} annotations came back for {len(batch)} problems")
            if file is not None:
                rows = ({"id": p.id, **row} for p, row in zip(batch, made, strict=True))
                file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
                file.flush()
                os.fsync(file.fileno())
            if progress is not None:
                progress(len(batch))
    return len(missing)


def read_annotations(path: Path, key: str | None = None) -> dict[str, dict[str, Any]]:
    """Rows of an annotation file by problem id; a later row wins; a last line that a kill cut short is left out.

    Raises DataError naming the row of any other line that is no object with `id` (and `key`).
    """
    rows: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(path.read_bytes()[: _complete_size(path)].splitlines(), start=1):
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
    """Captions by problem id, from a file of objects with `id` and `caption`."""
    rows = read_annotations(path, "caption")
    wrong = next((name for name, row in rows.items() if not isinstance(row["caption"], str)), None)
    if wrong is not None:
        raise DataError(f"{path}: the caption of {wrong!r} is not a text")
    return {name: row["caption"] for name, row in rows.items()}


def read_pass_rates(path: Path) -> dict[str, dict[str, float]]:
    """`pass_rate` and, where measured, `pass_rate_text` in [0, 1] by problem id."""
    rates: dict[str, dict[str, float]] = {}
    for name, row in read_annotations(path, "pass_rate").items():
        found = {key: row[key] for key in ("pass_rate", "pass_rate_text") if row.get(key) is not None}
        for key, value in found.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise DataError(f"{path}: `{key}` of {name!r} is {value!r}, not a number from 0 to 1")
        rates[name] = found
    return rates


def measure_pass_rates(
    problems: Sequence[Problem],
    path: Path,
    solve: Callable[[Sequence[Problem]], Bool[np.ndarray, "problems samples"]],
    checkpoint: str,
    batch_size: int,
    solve_blind: Callable[[Sequence[Problem]], Bool[np.ndarray, "problems samples"]] | None = None,
    progress: Callable[[int], None] | None = None,
    **together: Any,
) -> int:
    """Annotate problems with the share of k sampled answers of a checkpoint that are right; resumable.

    `solve` says which samples are right; `solve_blind` the same without pictures, for the gap between the two (the
    idea of RAP, Li et al. 2025: a problem whose picture changes nothing does not train seeing); problems without
    pictures get no second rate. `together`: see `annotate`. Raises DataError when `path` holds rates of another
    checkpoint.
    """
    if path.exists():
        others = {row.get("checkpoint") for row in read_annotations(path, "pass_rate").values()} - {checkpoint}
        if others:
            raise DataError(
                f"{path} holds pass rates of {', '.join(sorted(map(str, others)))}, not of {checkpoint}: remove it, or "
                "name another file as the source's `pass_rates`"
            )

    def make(batch: Sequence[Problem]) -> list[dict[str, Any]]:
        right = np.asarray(solve(batch), bool)
        rows: list[dict[str, Any]] = [
            {"pass_rate": float(row.mean()), "samples": len(row), "checkpoint": checkpoint} for row in right
        ]
        pictured = [n for n, problem in enumerate(batch) if problem.images]
        if solve_blind is not None and pictured:
            for n, blind in zip(pictured, np.asarray(solve_blind([batch[n] for n in pictured]), bool), strict=True):
                rows[n]["pass_rate_text"] = float(blind.mean())
        return rows

    return annotate(problems, path, make, batch_size, progress, **together)


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
    """The problem with its caption and pass rate, where there are some; see `Annotated`."""
    changes: dict[str, Any] = {}
    if problem.id in captions:
        changes["caption"] = captions[problem.id]
    if problem.id in rates:
        changes["level"] = 1.0 - rates[problem.id]["pass_rate"]
        changes["extra"] = problem.extra | dict(rates[problem.id])
    return dataclasses.replace(problem, **changes) if changes else problem


@contextlib.contextmanager
def _appendable(path: Path) -> Iterator[BinaryIO]:
    """The file opened at its end, a last line that a kill cut short taken off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.truncate(_complete_size(path))
        yield file


def _complete_size(path: Path) -> int:
    """Bytes up to and including the last line end."""
    return path.read_bytes().rfind(b"\n") + 1
