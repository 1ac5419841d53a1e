"""The record every source is read into: one verifiable problem."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

AnswerType = Literal["math", "choice", "string"]
ANSWER_TYPES: tuple[str, ...] = ("math", "choice", "string")
CHOICE_LETTERS = "ABCDEFGHIJ"


@dataclasses.dataclass(frozen=True)
class Problem:
    """One verifiable problem.

    `question` may hold `<image>` marks, one an image, in order; without marks the images come before the text.
    `images` are absolute paths of files that were already checked, or encoded PNG/JPEG bytes (synthetic problems).
    `answer` is always a string: the letter for `choice`, LaTeX or a plain number for `math`, literal text for `string`.
    `caption` is text that stands for the images; a phase decides whether the prompt shows it.
    `solution` is a worked chain of thought (without tags), used by the supervised cold start only.
    `extra` keeps every other key of the source row. `row` is the row's number in its file (from 1), for messages.
    """

    id: str
    question: str
    answer: str
    answer_type: AnswerType
    choices: tuple[str, ...] = ()
    images: tuple[str | bytes, ...] = ()
    caption: str | None = None
    solution: str | None = None
    source: str = ""
    subject: str | None = None
    level: float | None = None
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)
    row: int | None = dataclasses.field(default=None, compare=False)


class DataError(ValueError):
    """Bad input data: the message is a sentence that names the file and row and says what to do."""
