"""Files that survive a kill: replaced as a whole, grown by complete rows of JSON, pictures named by their content."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from infimmr_jax.names import JsonValue

_log = logging.getLogger(__name__)
_BLOCK = 1 << 16


def replace_file(path: Path, content: str | bytes) -> None:
    """Write a file so that its readers, also those after a kill, have the old content or the new one.

    The folder is made. Half a surrogate pair, which UTF-8 can not hold, is written as its escape (`\\udc80`).
    """
    with replacing(path) as file:
        file.write(content if isinstance(content, bytes) else _utf8(content))


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file to be written from its beginning; it takes its place when the block ends without an exception."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def json_line(row: Mapping[str, object]) -> bytes:
    """Encode a row as one line of strict JSON in UTF-8.

    Arrays and array scalars become lists and numbers, NaN and infinities null, paths texts. Any Python text survives:
    half a surrogate pair becomes its JSON escape.
    """
    return _utf8(json.dumps(plain_json(row), ensure_ascii=False, allow_nan=False, separators=(",", ":"))) + b"\n"


def append_rows(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Append rows to a JSONL file and bring them to the disk; a last line that a kill cut short is taken off first."""
    lines = b"".join(map(json_line, rows))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        file.truncate(_complete_size(file))
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())


def complete_lines(path: Path) -> list[bytes]:
    """Read the lines of a file without their ends; a last line that a kill cut short is none."""
    return path.read_bytes().split(b"\n")[:-1]


def cut_rows(path: Path, keep: int) -> int:
    """Cut a JSONL file after its first `keep` complete lines; return how many lines it now has (0 if it is missing)."""
    count, end = 0, 0
    if path.exists():
        with path.open("rb+") as file:
            for line in file:
                if count == keep or not line.endswith(b"\n"):
                    break
                count, end = count + 1, end + len(line)
            file.truncate(end)
    if count < keep:
        _log.warning(
            "%s has %d rows, %d were there at the checkpoint: the missing ones stay missing", path, count, keep
        )
    return count


def content_name(content: bytes, suffix: str) -> str:
    """Name a file by its content, so that equal pictures are stored once."""
    return hashlib.sha256(content).hexdigest()[:16] + suffix


def store_once(path: Path, content: bytes) -> None:
    """Write a file that is named by its content, unless it is there."""
    if not path.exists():
        replace_file(path, content)


def plain_json(value: object) -> JsonValue:
    """Turn everything that json does not know into plain Python; NaN and infinities become None."""
    if isinstance(value, Mapping):
        return {str(key): plain_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(item) for item in value]
    if hasattr(value, "tolist"):  # arrays and scalars of NumPy and JAX; this leaf imports neither
        return plain_json(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _complete_size(file: BinaryIO) -> int:
    """Bytes up to and including the last line end, looked for from the end of the file."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - _BLOCK)
        file.seek(start)
        place = file.read(end - start).rfind(b"\n")
        if place >= 0:
            return start + place + 1
        end = start
    return 0
