"""Raw records from files: JSON lines, JSON lists, parquet, and folders of JSON files, with their row numbers."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow.parquet

from infimmr_jax.data.records import DataError
from infimmr_jax.data.roots import open_below, open_resolved
from infimmr_jax.names import JsonObject, JsonValue

Record = JsonObject
Rows = Iterator[tuple[int, JsonValue]]


def raw_records(path: Path) -> Rows:
    """Yield row number (from 1) and decoded record of every row of a .jsonl, .json or .parquet file.

    A row that can not be decoded comes as the DataError that says why. A .json file holds a list, or an object whose
    values are the records (MathVista); its key then becomes the record's `id` where it has none. The file is opened at
    once. Raises DataError when the file as a whole can not be read.
    """
    readers = {".jsonl": _json_lines, ".json": _json_list, ".parquet": _parquet_rows}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path} is none of {', '.join(readers)}; convert it or choose another reader")
    return reader(path, open_resolved(path.resolve()))


def folder_records(folder: Path, file_name: str) -> Rows:
    """Yield the JSON object of every file called `file_name` (a glob pattern) below a folder, in natural order.

    The record's key `_file` is the path relative to the folder. A symbolic link that leads out of the folder is a
    DataError.
    """
    names = [path.relative_to(folder).as_posix() for path in folder.rglob(file_name)]
    for number, name in enumerate(sorted(names, key=_natural), start=1):
        try:
            record = decode_below(folder, name)
        except DataError as error:
            yield number, error
            continue
        yield number, {**record, "_file": name} if isinstance(record, dict) else record


def decode_below(folder: Path, name: str) -> object:
    """Decode a JSON file below a folder; every DataError names it."""
    try:
        with open_below(folder, name, "file") as file:
            return decode_json(file.read())
    except DataError as error:
        raise DataError(f"{printable(name)}: {error}") from error


def decode_json(line: bytes) -> JsonValue:
    """Decode UTF-8 JSON; raises DataError with a sentence on anything that is neither."""
    try:
        return json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"not valid UTF-8 (byte {error.start})") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"not valid JSON: {error}") from error
    except ValueError as error:  # a whole number of more than 4,300 digits
        raise DataError(f"a value can not be read: {error}") from error


def printable(text: str) -> str:
    """Return the text with halves of surrogate pairs, which no file or terminal takes, as their escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _json_lines(path: Path, file: BinaryIO) -> Rows:
    with file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield number, decode_json(line)
            except DataError as error:
                yield number, error


def _json_list(path: Path, file: BinaryIO) -> Rows:
    with file:
        try:
            content = decode_json(file.read())
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
    if isinstance(content, dict):
        content = [{"id": key, **item} if isinstance(item, dict) else item for key, item in content.items()]
    if not isinstance(content, list):
        raise DataError(f"{path} holds a {type(content).__name__}, not a list of records")
    yield from enumerate(content, start=1)


def _parquet_rows(path: Path, file: BinaryIO) -> Rows:
    numbers = itertools.count(1)
    with contextlib.closing(file):
        batches = _batches(file)
        while True:
            try:
                records = next(batches, None)
            # Damaged files raise what they like: OSError, ValueError, OverflowError, UnicodeDecodeError, MemoryError.
            except Exception as error:
                said = printable(str(error)).splitlines()[0][:300] if str(error) else type(error).__name__
                raise DataError(f"{path} can not be read as parquet after row {next(numbers) - 1}: {said}") from error
            if records is None:
                return
            for record in records:
                yield next(numbers), record


def _batches(file: BinaryIO) -> Iterator[list[object]]:
    with pyarrow.parquet.ParquetFile(file) as table:
        # Small batches: a row may carry several megabytes of pictures.
        for batch in table.iter_batches(batch_size=64):
            yield batch.to_pylist()


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Sort key by which 9.json comes before 10.json in every folder."""
    stems = [(part, os.path.splitext(part)[0]) for part in name.split("/")]
    # Longer numbers are names: int() takes 4,300 digits at most, and isdigit() takes ².
    numbers = [
        (part, int(stem) if stem.isascii() and stem.isdigit() and len(stem) < 19 else None) for part, stem in stems
    ]
    return [(number is None, number or 0, part) for part, number in numbers]


__all__ = ["Record", "Rows", "decode_below", "decode_json", "folder_records", "printable", "raw_records"]
