"""Compares two records: every row, weight and program, and BEFORE's stopped run continued by AFTER's program."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from studies.same_numbers.cases import PARTS
from studies.same_numbers.record import (
    RunFailedError,
    check_package,
    keep_rows,
    read_rows,
    read_weights,
    run_command,
    weights_digest,
)

# What decides the bits of a result besides the program.
SURROUNDINGS = ("python", "versions", "xla_flags", "threads", "cores")
SIZES = ("bytes", "instructions", "dots", "flops")
MISSING = "(no such key)"


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of the table: what was compared, how much of it, the verdict, and whether it is within the tolerance."""

    part: str
    amount: str
    verdict: str
    same: bool


def compare(
    before: Path,
    after: Path,
    tolerance: float = 0.0,
    names: list[str] | None = None,
    package: Path | None = None,
    resume: bool = True,
) -> int:
    """Print the table of two records; 1 when anything differs by more than `tolerance` (relative), else 0.

    `names` are the parts to compare, None all. `package` is the checkout that goes on with BEFORE's stopped runs,
    default where AFTER was recorded from; `resume` False leaves that out.
    """
    first, second = (json.loads((folder / "record.json").read_text(encoding="utf-8")) for folder in (before, after))
    parts = names or list(first["parts"])
    lines = [line for part in parts for line in compare_part(part, before, after, tolerance)]
    if resume and "nano" in parts:
        lines += resumed_lines(before, after, package or Path(second["package"]), tolerance)
    print(f"before: {first['revision']} ({before})\nafter:  {second['revision']} ({after})")
    for note in notes(before, after, first, second):
        print(note)
    print(table(lines))
    different = [line.part for line in lines if not line.same]
    print(f"different: {', '.join(different)}" if different else "No number is different.")
    return 1 if different else 0


def notes(before: Path, after: Path, first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[str]:
    """Sentences about what may explain a difference and is not the program."""
    for key in SURROUNDINGS:
        if first[key] != second[key]:
            yield f"note: {key} was {first[key]!r} before and is {second[key]!r} after"
    for file in sorted((before / "configs").glob("*.yaml")):
        other = after / "configs" / file.name
        if not other.is_file() or other.read_bytes() != file.read_bytes():
            yield f"note: configs/{file.name} is another one: record AFTER with --configs {before / 'configs'}"
    extra = [part for part in second["parts"] if part not in first["parts"]]
    if extra:
        yield f"note: only AFTER has {', '.join(extra)}"


def compare_part(part: str, before: Path, after: Path, tolerance: float) -> Iterator[Line]:
    """The lines of a part: one for each file of rows, one for its weights, one for its programs."""
    old, now = before / "rows" / part, after / "rows" / part
    for folder in (old, now):
        if not folder.is_dir():
            yield Line(part, "-", f"{folder} is not there: the part was not recorded", False)
            return
    for file in sorted({file.relative_to(folder) for folder in (old, now) for file in folder.rglob("*.jsonl")}):
        yield rows_line(f"{part}: {file.with_suffix('')}", _rows(old / file), _rows(now / file), tolerance)
    old, now = before / "weights" / part, after / "weights" / part
    if old.is_dir() or now.is_dir():
        yield weights_line(f"{part}: weights", read_weights(old), read_weights(now), tolerance)
    old, now = (folder / "programs" / f"{part}.jsonl" for folder in (before, after))
    if old.is_file() or now.is_file():
        yield programs_line(f"{part}: programs", _rows(old), _rows(now), tolerance)


def rows_line(part: str, before: Sequence[Any], after: Sequence[Any], tolerance: float) -> Line:
    """Compare rows key by key; a key that only AFTER has is news, not a difference."""
    first: str | None = None
    largest, new = 0.0, set()
    for index, (old, now) in enumerate(itertools.zip_longest(before, after, fillvalue=None)):
        if old is None or now is None:
            first = first or f"row {index} is only {'after' if old is None else 'before'}"
            break
        for key, was, value in differences(old, now):
            if was is MISSING:
                new.add(key)
                continue
            share = relative(was, value)
            largest = max(largest, share)
            if share > tolerance and first is None:
                by = f"{share:.1e} of it" if math.isfinite(share) else "not a number's difference"
                first = f"row {index}, {key}: {_short(was)} -> {_short(value)} ({by})"
    amount = f"{len(before)} rows" if len(before) == len(after) else f"{len(before)} -> {len(after)} rows"
    verdict = first or _equal(largest)
    if new:
        verdict += f"; new keys: {', '.join(sorted(new)[:4])}{' ..' if len(new) > 4 else ''}"
    return Line(part, amount, verdict, first is None)


def differences(old: Any, now: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(key, old, new) of every leaf that differs, in the order of `old`; lists of other lengths differ as wholes."""
    if isinstance(old, dict) and isinstance(now, dict):
        for name in [*old, *(name for name in now if name not in old)]:
            yield from differences(old.get(name, MISSING), now.get(name, MISSING), f"{key}.{name}" if key else name)
    elif isinstance(old, list) and isinstance(now, list) and len(old) == len(now):
        for index, (one, other) in enumerate(zip(old, now, strict=True)):
            yield from differences(one, other, f"{key}.{index}")
    elif type(old) is not type(now) or old != now:
        yield key, old, now


def relative(old: Any, now: Any) -> float:
    """The difference of two numbers as a share of the larger one; infinite for anything else that differs."""
    numbers = [isinstance(value, int | float) and not isinstance(value, bool) for value in (old, now)]
    if not all(numbers):
        return 0.0 if type(old) is type(now) and old == now else math.inf
    # 1 and 1.0 are one number, whatever type a refactoring gave it.
    return 0.0 if old == now else abs(old - now) / max(abs(old), abs(now))


def weights_line(
    part: str, before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray], tolerance: float
) -> Line:
    """Compare arrays by name: the largest difference of one, as a share of the largest value of its tensor."""
    amount = f"{len(before)} tensors"
    unpaired = sorted(before.keys() ^ after.keys())
    if unpaired or not before:
        return Line(part, amount, f"on one side only: {', '.join(unpaired[:3]) or 'nothing was kept'}", False)
    changed = [name for name in before if _kind(before[name]) != _kind(after[name])]
    if changed:
        name = changed[0]
        return Line(part, amount, f"{name}: {_kind(before[name])} -> {_kind(after[name])}", False)
    if weights_digest(dict(before)) == weights_digest(dict(after)):
        return Line(part, amount, "equal bit for bit", True)
    shares = {name: _array_share(before[name], after[name]) for name in before}
    worst = max(shares, key=lambda name: shares[name])
    verdict = f"largest difference {shares[worst]:.1e} of {worst}'s largest value"
    return Line(part, amount, verdict, shares[worst] <= tolerance)


def programs_line(
    part: str, before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]], tolerance: float
) -> Line:
    """Compare what the compiler made: programs of one text are equal, the others are paired by their order of size."""
    digests = [{row["digest"] for row in rows} for rows in (before, after)]
    old = [row for row in before if row["digest"] not in digests[1]]
    now = [row for row in after if row["digest"] not in digests[0]]
    amount = f"{len(before)} programs" if len(before) == len(after) else f"{len(before)} -> {len(after)} programs"
    if not old and not now:
        return Line(part, amount, "equal texts", True)
    if len(old) != len(now):
        left = ", ".join(f"{row['name']} of {row['bytes']:,} bytes" for row in (old if len(old) > len(now) else now))
        return Line(part, amount, f"{len(old)} before and {len(now)} after without an equal: {left}", False)
    largest, told = 0.0, []
    for was, row in zip(old, now, strict=True):
        largest = max(largest, *(relative(was[size], row[size]) for size in SIZES))
        changes = [f"{size} {was[size]:,} -> {row[size]:,}" for size in SIZES if was[size] != row[size]]
        told.append(f"{was['name']}: {', '.join(changes) or 'another text of the same sizes and FLOPs'}")
    return Line(part, amount, "; ".join(told), largest <= tolerance)


def resumed_lines(before: Path, after: Path, package: Path, tolerance: float) -> Iterator[Line]:
    """Go on with BEFORE's stopped runs by AFTER's program; they must come to BEFORE's unbroken rows and weights."""
    stopped = sorted((before / "stopped").iterdir()) if (before / "stopped").is_dir() else []
    if not stopped:
        yield Line("resumed", "-", f"{before / 'stopped'} holds no stopped run", False)
        return
    check_package(package.resolve())
    (command,) = next(part.commands for part in PARTS if part.stopped)
    for run in stopped:
        part = f"resumed in the {run.name.replace('_', ' ')}"
        with tempfile.TemporaryDirectory() as folder:
            # The run lies there as it lay here: its configuration has relative paths only.
            here = Path(folder)
            for name in ("configs", "inputs"):
                shutil.copytree(before / name, here / name)
            shutil.copytree(run, here / "runs" / "nano")
            try:
                run_command((*command, "--resume"), here, package.resolve(), "resumed", cache=after.resolve() / "cache")
            except RunFailedError as error:
                yield Line(part, "-", str(error).splitlines()[-1], False)
                print(error)
                continue
            keep_rows(here / "runs" / "nano", here / "rows")
            for file in sorted((here / "rows").glob("*.jsonl")):
                unbroken = before / "rows" / "nano" / file.name
                yield rows_line(f"{part}: {file.stem}", _rows(unbroken), _rows(file), tolerance)
            arrays = read_weights(here / "runs" / "nano" / "model")
            yield weights_line(f"{part}: weights", read_weights(before / "weights" / "nano"), arrays, tolerance)


def table(lines: Sequence[Line]) -> str:
    """The lines in columns; those beyond the tolerance are marked."""
    rows = [("", "part", "amount", "verdict")]
    rows += [("" if line.same else "DIFFERS", line.part, line.amount, line.verdict) for line in lines]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]).rstrip()
        for row in rows
    )


def _rows(path: Path) -> list[dict[str, Any]]:
    return read_rows(path) if path.is_file() else []


def _equal(largest: float) -> str:
    return f"equal to {largest:.1e}" if largest else "equal bit for bit"


def _short(value: Any) -> str:
    text = value if value is MISSING else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}.."


def _kind(array: np.ndarray) -> str:
    return f"{array.dtype}{list(array.shape)}"


def _array_share(old: np.ndarray, now: np.ndarray) -> float:
    if np.array_equal(old, now, equal_nan=True):
        return 0.0
    wide = [array.astype(np.float64) for array in (old, now)]
    share = float(np.max(np.abs(wide[0] - wide[1])) / max(float(np.max(np.abs(array))) for array in wide))
    return share if math.isfinite(share) else math.inf
