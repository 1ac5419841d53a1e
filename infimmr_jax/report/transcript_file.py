"""transcripts.jsonl as the report reads it: an index of its rows, which are read again one by one."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TypeGuard, overload

from infimmr_jax.report.page_data import Json

Row = Json
# A row of 64 responses of 8,192 tokens with their log-probs is about 10 MB.
MAX_ROW_BYTES = 32_000_000


@dataclasses.dataclass(frozen=True)
class Summary:
    """What the selection and the distributions need of a transcript; `values` holds the numbers of its responses."""

    kind: str
    phase: str
    modality: str
    step: float
    values: dict[str, tuple[float, ...]]


def summarise(row: Row) -> Summary:
    """Summarise one row; missing keys become empty texts, a missing step -1."""
    responses = [response for response in row["responses"] if isinstance(response, dict)]
    values = {key: tuple(x for response in responses if is_number(x := response.get(key))) for key in SUMMARISED}
    step = row.get("step")
    return Summary(
        str(row.get("kind", "train")),
        str(row.get("phase")),
        str(row.get("modality")),
        step if is_number(step) else -1,
        values,
    )


SUMMARISED = ("total", "length")


class TranscriptFile(Sequence[Row]):
    """The rows of a file that have responses; only their summaries and places are kept in memory."""

    def __init__(self, path: Path, notes: list[str]):
        self.path = path
        self.summaries: list[Summary] = []
        self._places: list[tuple[int, int]] = []
        if path.exists():
            self._index(notes)

    def _index(self, notes: list[str]) -> None:
        bad = large = start = 0
        with self.path.open("rb") as file:
            while line := file.readline(MAX_ROW_BYTES):
                if not line.endswith(b"\n") and len(line) == MAX_ROW_BYTES:
                    large += 1
                    while line and not line.endswith(b"\n"):
                        line = file.readline(MAX_ROW_BYTES)
                else:
                    row = _row_of(line)
                    if row is None:
                        bad += 1
                    elif isinstance(row.get("responses"), list):
                        self._places.append((start, len(line)))
                        self.summaries.append(summarise(row))
                start = file.tell()
        if bad:
            notes.append(f"{self.path.name}: {bad} line{'s' if bad > 1 else ''} could not be read, and left out.")
        if large:
            notes.append(
                f"{self.path.name}: {large} row{'s' if large > 1 else ''} of more than {MAX_ROW_BYTES // 1_000_000} MB "
                "left out."
            )

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, place: int) -> Row: ...

    @overload
    def __getitem__(self, place: slice) -> list[Row]: ...

    def __getitem__(self, place: int | slice) -> Row | list[Row]:
        if isinstance(place, slice):
            return [self[index] for index in range(*place.indices(len(self)))]
        start, size = self._places[place]
        with self.path.open("rb") as file:
            file.seek(start)
            # A run that goes on may have cut the file in the meantime.
            return _row_of(file.read(size)) or {"responses": []}


def summaries_of(rows: Sequence[Row]) -> list[Summary]:
    """Return the summaries of rows, from the index of their file where there is one."""
    return rows.summaries if isinstance(rows, TranscriptFile) else [summarise(row) for row in rows]


def _row_of(line: bytes) -> Row | None:
    try:
        row = json.loads(line, parse_constant=lambda _: None, parse_float=_finite)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _finite(text: str) -> float | None:
    """Read a number; 1e400 is none that the page can hold."""
    value = float(text)
    return value if math.isfinite(value) else None


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value of a row is a number that can be shown and binned."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e300 and math.isfinite(value)
