"""The record every source is read into: one verifiable problem."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from infimmr_jax.config import RewardSection
from infimmr_jax.errors import UserError
from infimmr_jax.names import AnswerType, JsonObject


@dataclasses.dataclass(frozen=True)
class Problem:
    """One verifiable problem.

    `question` may hold `<image>` marks, one an image, in order; without marks the images come before the text.
    `images` are absolute paths, free of symbolic links, of files that were already checked, or encoded PNG/JPEG bytes
    (synthetic problems).
    `answer` is always a string: the letter for `choice`, LaTeX or a plain number for `math`, literal text for `string`;
    the forms of the other types are in docs/data.md, "Answers". Coordinates refer to an image of `extra["image_size"]`
    ([width, height]), which the readers fill in from the image file where the row does not say.
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
    extra: JsonObject = dataclasses.field(default_factory=dict)
    row: int | None = dataclasses.field(default=None, compare=False)


@runtime_checkable
class CheckGolds(Protocol):
    """Tells which gold answers can not be graded; handed in by rooms that know graders (`rewards.golds.GoldCheck`)."""

    def __call__(self, problems: Sequence[Problem]) -> Sequence[str | None]:
        """Return for every problem a sentence saying why its gold answer can not be graded, or None."""

    def under(self, reward: RewardSection) -> CheckGolds:
        """Return the same check by the rules of another reward section."""


class DataError(UserError, ValueError):
    """Bad input data: the message is a sentence that names the file and row and says what to do."""
