"""Finding and reading the files a benchmark is published in: hub parquet or JSON, and the original repositories."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path, PurePath

from infimmr_jax.data.raw_records import raw_records
from infimmr_jax.data.records import DataError
from infimmr_jax.data.roots import resolve_below
from infimmr_jax.evaluation.items import MissingPicture, Picture
from infimmr_jax.names import JsonObject

Row = JsonObject


def find_files(path: Path, patterns: Sequence[str], benchmark: str) -> list[Path]:
    """The files to read: `path` itself, or in a directory those of the first pattern that matches any.

    Patterns are tried in order, first in the directory, then anywhere below it. Raises DataError with the patterns
    when nothing matches.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"there is no file or directory {path}")
    for pattern in patterns:
        found = sorted(path.glob(pattern)) or sorted(path.rglob(pattern))
        if found:
            return found
    raise DataError(f"{path} holds no file of {benchmark}; looked for {', '.join(patterns)}")


def read_rows(path: Path, required: Sequence[str]) -> list[Row]:
    """All rows of a .json (a list, or an object of rows), .jsonl or .parquet file.

    Raises DataError, naming file and row, for an unreadable row and for one without a `required` key: a benchmark with
    rows left out would give a number that can be compared with nothing.
    """
    rows: list[Row] = []
    for number, row in raw_records(path):
        if isinstance(row, DataError):
            raise DataError(f"{path}, row {number}: {row}")
        missing = [key for key in required if key not in row] if isinstance(row, dict) else list(required)
        if missing:
            raise DataError(
                f"{path}, row {number}: there is no key {', '.join(map(repr, missing))}; is it another file?"
            )
        rows.append(row)
    if not rows:
        raise DataError(f"{path} holds no rows")
    return rows


def picture(value: object, file: Path, where: str) -> Picture:
    """Find a row's picture: the encoded bytes of a parquet struct, or the absolute path of a file.

    A path is looked for beside the data file, in its `images` directory, and one and two levels up. One that is nowhere
    comes back as MissingPicture: scoring stored responses needs none. Raises DataError for what is neither path nor
    bytes, and for a path that leads out of the folder.
    """
    if isinstance(value, dict) and value.get("bytes"):
        return bytes(value["bytes"])
    if isinstance(value, bytes):
        return value
    name = value.get("path") if isinstance(value, dict) else value
    if not isinstance(name, str) or not name:
        raise DataError(f"{file}, {where}: the image is {type(value).__name__}, not a path or encoded bytes")
    if PurePath(name).is_absolute() or ".." in PurePath(name).parts:
        raise DataError(f"{file}, {where}: image {name[:200]!r} leads outside the folder of the benchmark")
    folders = [folder for base in file.parents[:3] for folder in (base, base / "images")]
    for folder in folders:
        with contextlib.suppress(DataError):
            return str(resolve_below(folder, name, "image"))
    if any((folder / name).exists() for folder in folders):
        raise DataError(f"{file}, {where}: image {name[:200]!r} leads outside the folder of the benchmark")
    return MissingPicture(
        f"{file}, {where}: image {name[:200]!r} was not found beside it; unpack the benchmark's images there"
    )


def unique_ids(ids: Sequence[str], path: Path) -> None:
    """Raise DataError when two rows share an id: their responses could not be told apart."""
    seen: set[str] = set()
    for identity in ids:
        if identity in seen:
            raise DataError(f"{path}: the id {identity!r} occurs twice; pass one split, not several files of one")
        seen.add(identity)


def letters(count: int) -> list[str]:
    """The first `count` capital letters."""
    return [chr(ord("A") + index) for index in range(count)]


def lettered(choices: Sequence[str]) -> str:
    """Options as lines `(A) ..`."""
    return "\n".join(f"({letter}) {choice}" for letter, choice in zip(letters(len(choices)), choices, strict=True))
