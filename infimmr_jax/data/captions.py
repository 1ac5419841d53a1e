"""Captions beside the problems: read from a file, put on problems, and looked at for the answer."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import overload

from infimmr_jax.data.files import raw_records
from infimmr_jax.data.records import CHOICE_LETTERS, DataError, Problem

TRIVIAL = frozenset(("true", "false", "yes", "no"))


def leaks_answer(problem: Problem) -> bool:
    """Whether the caption holds the answer verbatim: the number, the text, or the right option's text as whole words.

    A flag for a person to look at, not a verdict: a caption that lists all bars of a chart also lists the tallest one.
    Yes/no and true/false answers are not looked for.
    """
    answer = problem.answer
    if problem.answer_type == "choice":
        position = CHOICE_LETTERS.find(answer.strip())
        answer = problem.choices[position] if 0 <= position < len(problem.choices) else ""
    answer = answer.strip().strip("$").strip()
    if not problem.caption or not answer or answer.lower() in TRIVIAL:
        return False
    # A digit or word may not continue on either side: 6 is not in 60, nor in 1.6, nor in 6.5.
    pattern = rf"(?<![\w.]){re.escape(answer)}(?!\w|\.\d)"
    return re.search(pattern, problem.caption, re.IGNORECASE) is not None


def read_captions(path: Path) -> dict[str, str]:
    """Captions by problem id, from a JSON-lines file of objects with `id` and `caption`; a later line wins.

    Raises DataError naming the row of the first line that is none. `infimmr caption` appends to such a file while it
    runs, so that a last line without its end is left out: it was cut by a kill and will be written again.
    """
    captions: dict[str, str] = {}
    complete = path.read_bytes().endswith(b"\n")
    broken: tuple[int, str] | None = None
    for number, row in raw_records(path):
        if broken:
            break
        if isinstance(row, DataError):
            broken = (number, str(row))
        elif not isinstance(row, dict) or not isinstance(row.get("caption"), str) or "id" not in row:
            raise DataError(f"{path}, row {number}: expected an object with `id` and `caption`")
        else:
            captions[str(row["id"])] = row["caption"]
    else:
        if broken and not complete:
            return captions
    if broken:
        raise DataError(f"{path}, row {broken[0]}: {broken[1]}")
    return captions


class Captioned(Sequence[Problem]):
    """A sequence of problems with captions put on those whose id has one."""

    def __init__(self, problems: Sequence[Problem], captions: Mapping[str, str]) -> None:
        self.problems, self.captions = problems, captions

    def __len__(self) -> int:
        return len(self.problems)

    @overload
    def __getitem__(self, index: int) -> Problem: ...
    @overload
    def __getitem__(self, index: slice) -> list[Problem]: ...
    def __getitem__(self, index: int | slice) -> Problem | list[Problem]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        problem = self.problems[index]
        caption = self.captions.get(problem.id)
        return problem if caption is None else dataclasses.replace(problem, caption=caption)
