"""What XLA made of the programs of a run, from the text that it dumps: sizes and products, without names."""

from __future__ import annotations

import hashlib
import math
import re
from pathlib import Path
from typing import Any

# Smaller ones are single operations on the host's way to a step.
LEAST_BYTES = 30_000
SUFFIX = ".cpu_after_optimizations.txt"
DUMP_FLAGS = "--xla_dump_hlo_as_text"

_METADATA = re.compile(r', metadata=\{(?:[^{}"]|"(?:[^"\\]|\\.)*")*\}')
_NAME = re.compile(r"%[\w.\-]+")
_LAID_OUT = re.compile(r"^\s*(?:ROOT )?(%[\w.\-]+) = \w+\[([\d,]*)\]", re.MULTILINE)
_DOT = re.compile(r"= \w+\[([\d,]*)\]\S* dot\((%[\w.\-]+), .*?lhs_contracting_dims=\{([\d,]*)\}")


def plain_text(text: str) -> str:
    """The text of an optimised module without what a moved file or a renamed function changes.

    Gone are the tables of source files, `metadata` and the module's own line; names become numbers in their order.
    """
    start = re.search(r"^(?:ENTRY )?%[^\n]*\{\n", text, re.MULTILINE)
    if start is None:
        raise ValueError("the dumped text has no computation: this version of XLA writes another form")
    numbers: dict[str, str] = {}
    return _NAME.sub(
        lambda found: numbers.setdefault(found[0], f"%{len(numbers)}"), _without_names(text[start.start() :])
    )


def _without_names(text: str) -> str:
    # Parameters in the head of a computation have their names without the sign; the body says all of it again.
    text = re.sub(r"^((?:ENTRY )?%[\w.\-]+) \(.*\{$", r"\1 {", text, flags=re.MULTILINE)
    return _METADATA.sub("", text)


def product_flops(text: str) -> int:
    """Floating-point operations of all `dot` instructions in a module's text, each counted once, loops included."""
    shapes = {name: _sizes(shape) for name, shape in _LAID_OUT.findall(text)}
    total = 0
    for made, left, contracted in _DOT.findall(text):
        total += 2 * math.prod(_sizes(made)) * math.prod(shapes[left][axis] for axis in _sizes(contracted))
    return total


def _sizes(text: str) -> list[int]:
    return [int(size) for size in text.split(",") if size]


def read_dump(directory: Path) -> list[dict[str, Any]]:
    """A row for each distinct program of at least LEAST_BYTES, the largest first."""
    rows: dict[str, dict[str, Any]] = {}
    for file in sorted(directory.glob(f"*{SUFFIX}")):
        text = plain_text(file.read_text(encoding="utf-8"))
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        if len(text) < LEAST_BYTES or digest in rows:
            continue
        rows[digest] = {
            "name": file.name.removesuffix(SUFFIX).split(".", 1)[1],
            "bytes": len(text),
            "instructions": text.count(" = "),
            "dots": len(_DOT.findall(text)),
            "flops": product_flops(text),
            "digest": digest,
        }
    return sorted(rows.values(), key=lambda row: (-row["bytes"], row["digest"]))
