"""Raw records from files: JSON lines, JSON lists, parquet, and folders of JSON files, with their row numbers."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from infimmr_jax.data.records import DataError

Record = dict[str, Any]


def raw_records(path: Path) -> Iterator[tuple[int, Any | DataError]]:
    """Row number (from 1) and decoded record of every row of a .jsonl, .json or .parquet file.

    A row that can not be decoded comes as the DataError that says why. A .json file holds a list, or an object whose
    values are the records (MathVista); its key then becomes the record's `id` where it has none. Raises DataError when
    the file as a whole can not be read.
    """
    readers = {".jsonl": _json_lines, ".json": _json_list, ".parquet": _parquet_rows}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path} is none of {', '.join(readers)}; convert it or choose another reader")
    return reader(path)


def folder_records(folder: Path, file_name: str) -> Iterator[tuple[int, Any | DataError]]:
    """The JSON object of every file called `file_name` (a glob pattern) anywhere below a folder, in natural order.

    The record's key `_file` is the path relative to the folder.
    """
    found = sorted(folder.rglob(file_name), key=lambda path: [_natural(part) for part in path.parts])
    for number, path in enumerate(found, start=1):
        try:
            record = decode_json(path.read_bytes())
        except DataError as error:
            yield number, DataError(f"{path.relative_to(folder)}: {error}")
            continue
        if isinstance(record, dict):
            record = {**record, "_file": path.relative_to(folder).as_posix()}
        yield number, record


def decode_json(line: bytes) -> Any:
    """Decode UTF-8 JSON; raises DataError with a sentence on anything that is neither."""
    try:
        return json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"not valid UTF-8 (byte {error.start})") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"not valid JSON: {error}") from error
    except ValueError as error:  # a whole number of more than 4,300 digits
        raise DataError(f"a value can not be read: {error}") from error


def _json_lines(path: Path) -> Iterator[tuple[int, Any | DataError]]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                yield number, decode_json(line)
            except DataError as error:
                yield number, error


def _json_list(path: Path) -> Iterator[tuple[int, Any | DataError]]:
    try:
        whole = decode_json(path.read_bytes())
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    if isinstance(whole, dict):
        whole = [{"id": key, **item} if isinstance(item, dict) else item for key, item in whole.items()]
    if not isinstance(whole, list):
        raise DataError(f"{path} holds a {type(whole).__name__}, not a list of records")
    yield from enumerate(whole, start=1)


def _parquet_rows(path: Path) -> Iterator[tuple[int, Any | DataError]]:
    numbers = itertools.count(1)
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            # Small batches: a row may carry several megabytes of pictures.
            for batch in file.iter_batches(batch_size=64):
                for record in batch.to_pylist():
                    yield next(numbers), record
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{path} can not be read as parquet after row {next(numbers) - 1}: {error}") from error


def _natural(part: str) -> tuple[bool, int, str]:
    stem = part.split(".")[0]
    return (not stem.isdigit(), int(stem) if stem.isdigit() else 0, part)
