"""Captions: whether one gives the answer away, and captions that somebody else wrote."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path, PurePosixPath

from infimmr_jax.data.raw_records import raw_records
from infimmr_jax.data.records import DataError, Problem
from infimmr_jax.names import CHOICE_LETTERS, JsonObject

TRIVIAL = frozenset(("true", "false", "yes", "no"))
LEAKS = "holds the answer"
IMAGE_MARK = "<image>"


def leaks_answer(problem: Problem) -> bool:
    """Whether the caption holds the answer verbatim: the number or text as whole words.

    Of a choice: the right option's text, and no other option's. A flag for a person to look at, not a verdict: a
    caption that lists all bars of a chart also lists the tallest one. Yes/no and true/false are not looked for.
    """
    caption = problem.caption or ""
    if problem.answer_type != "choice":
        return _holds(caption, problem.answer)
    position = CHOICE_LETTERS.find(problem.answer.strip())
    held = [n for n, choice in enumerate(problem.choices) if _holds(caption, choice)]
    return held == [position]


def caption_row(problem: Problem, text: str, maker: str, finished: bool = True) -> JsonObject:
    """The annotation of a problem with a caption: image marks taken out, who made it, and flags that say why to look.

    A caption that is empty is stored too, with its flag: it is not asked for again, and the reader rejects the problem
    from caption phases.
    """
    lines = text.replace(IMAGE_MARK, "").replace("\x00", "").split("\n")
    caption = "\n".join(line.rstrip(" \t") for line in lines).strip()
    leaks = leaks_answer(dataclasses.replace(problem, caption=caption))
    found = (("empty", not caption), ("cut at the length limit", not finished), (LEAKS, leaks))
    return {"caption": caption, "maker": maker, "flags": [flag for flag, holds in found if holds]}


class CaptionFile:
    """Captions of a .jsonl, .json or .parquet file, found by a problem's id or by its image.

    Each row has `caption` (or `description`, `text`) and `id` (or `qid`, `problem_id`) or `image` (a path or its end).
    Raises DataError, naming the row, when one has no caption or no key, or when two rows of one key differ.
    """

    def __init__(self, path: Path):
        self.path = path
        self._by_id: dict[str, str] = {}
        self._by_image: dict[str, str] = {}
        for number, row in raw_records(path):
            if isinstance(row, DataError):
                raise DataError(f"{path}, row {number}: {row}")
            if not isinstance(row, dict):
                raise DataError(f"{path}, row {number}: the row is a {type(row).__name__}, not an object with keys")
            caption = next((row[key] for key in ("caption", "description", "text") if row.get(key) is not None), None)
            name = next((row[key] for key in ("id", "qid", "problem_id") if row.get(key) is not None), None)
            image = row["image"][0] if isinstance(row.get("image"), list) and row["image"] else row.get("image")
            if not isinstance(caption, str) or (name is None and not isinstance(image, str)):
                raise DataError(f"{path}, row {number}: expected `caption` (a text) and `id` or `image` (a path)")
            table, key = (self._by_id, str(name)) if name is not None else (self._by_image, _normal(str(image)))
            if table.setdefault(key, caption) != caption:
                raise DataError(f"{path}, row {number}: another caption of {key!r} came before")

    def __len__(self) -> int:
        return len(self._by_id) + len(self._by_image)

    def find(self, problem: Problem) -> str | None:
        """The caption of a problem by its id, else, for a problem of one picture, by the longest end of its path."""
        if problem.id in self._by_id:
            return self._by_id[problem.id]
        if len(problem.images) != 1 or isinstance(problem.images[0], bytes):
            return None
        parts = PurePosixPath(problem.images[0]).parts
        ends = (_normal("/".join(parts[start:])) for start in range(len(parts)))
        return next((self._by_image[end] for end in ends if end in self._by_image), None)


def _normal(path: str) -> str:
    return path.replace("\\", "/").removeprefix("file://").removeprefix("./").lstrip("/")


def _holds(caption: str, answer: str) -> bool:
    answer = answer.strip().strip("$").strip()
    if not answer or answer.lower() in TRIVIAL:
        return False
    # A digit or word may not continue on either side: 6 is not in 60, nor in 1.6, nor in 6.5.
    return re.search(rf"(?<![\w.]){re.escape(answer)}(?!\w|\.\d)", caption, re.IGNORECASE) is not None
