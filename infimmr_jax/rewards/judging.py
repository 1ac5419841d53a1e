"""What a judge is asked, and what it may say."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from infimmr_jax.data.records import Problem
from infimmr_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class JudgeRequest:
    """One response to be judged: the question, the gold answer, the whole response and the answer found in it."""

    question: str
    gold: str
    response: str
    extracted: str | None
    problem: Problem


Judge = Callable[[Sequence[JudgeRequest]], Sequence[float | None]]


class JudgeError(UserError, RuntimeError):
    """The judge can not be used or answered nothing at all: the sentence says which and why."""
