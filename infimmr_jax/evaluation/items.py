"""What a benchmark is made of: items to ask, gold answers to grade against, and one response's grade."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from infimmr_jax.config import ConfigError
from infimmr_jax.data.records import DataError, Problem
from infimmr_jax.names import AnswerType, JsonObject

Style = Literal["published", "published-cot", "plain"]


@dataclasses.dataclass(frozen=True)
class MissingPicture:
    """A picture that a row names and that is nowhere: `text` says where it was looked for. Only asking needs it."""

    text: str


Picture = str | bytes | MissingPicture


@dataclasses.dataclass(frozen=True)
class Item:
    """One problem of a benchmark.

    `prompt` is the text the benchmark publishes for asking, `prompt_cot` a second one that asks to reason first, where
    it publishes both; `question` and `choices` are the plain parts, for a policy that was trained on an instruction of
    its own. `gold` holds what grading needs and is plain JSON. `groups`
    are the breakdowns: a key maps to one value, or to several (MathVista's skills).
    """

    id: str
    prompt: str
    question: str
    answer: str
    answer_type: AnswerType
    gold: JsonObject
    choices: tuple[str, ...] = ()
    images: tuple[Picture, ...] = ()
    groups: dict[str, str | tuple[str, ...]] = dataclasses.field(default_factory=dict)
    prompt_cot: str | None = None

    def problem(self, style: Style) -> Problem:
        """The item as a Problem: published styles ask with the benchmark's own text (add no instruction of your own).

        Raises ConfigError when `published-cot` is asked for and there is no such text, DataError when a picture is
        missing.
        """
        published = style != "plain"
        missing = next((image for image in self.images if isinstance(image, MissingPicture)), None)
        if missing is not None:
            raise DataError(missing.text)
        return Problem(
            id=self.id,
            question=self.asked(style),
            answer=self.answer,
            # The published text already lists the options.
            answer_type="string" if published and self.answer_type == "choice" else self.answer_type,
            choices=() if published else self.choices,
            images=tuple(image for image in self.images if not isinstance(image, MissingPicture)),
        )

    def asked(self, style: Style) -> str:
        """The text of the prompt in a style; ConfigError when `published-cot` is asked for and there is none."""
        question = {"published": self.prompt, "published-cot": self.prompt_cot, "plain": self.question}[style]
        if question is None:
            raise ConfigError(
                f"--style {style}: problem {self.id!r} has no second published prompt that asks to reason first (only "
                "MathVerse publishes one); choose --style published"
            )
        return question


@dataclasses.dataclass(frozen=True)
class Response:
    """One sampled answer: its text, whether the length limit cut it off, and its number of tokens if known."""

    text: str
    truncated: bool = False
    tokens: int | None = None


@dataclasses.dataclass(frozen=True)
class Grade:
    """How one response was graded: `extracted` is None when no answer was found, `reason` says what decided."""

    correct: bool
    extracted: str | None
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """How a benchmark is read and scored.

    `grade(gold, text)` takes the text after the thinking section. It may be slow or even hang on hostile LaTeX: call it
    through `grading.Graders`. `protocol` says in words whose rules these are and where they differ, `prompts` what the
    published styles are where there are two. `summary` computes a benchmark's own metrics from the grades.
    """

    name: str
    title: str
    read: Callable[[Path], list[Item]]
    grade: Callable[[JsonObject, str], Grade]
    protocol: str
    paper: float | None = None
    group_keys: tuple[str, ...] = ()
    prompts: Mapping[Style, str] = dataclasses.field(default_factory=dict)
    summary: Callable[[Sequence[Item], Sequence[float]], dict[str, float]] | None = None
