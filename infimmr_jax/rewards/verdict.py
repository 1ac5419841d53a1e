"""What a verifier is asked and what it says."""

from __future__ import annotations

import dataclasses
from typing import Literal

# What decided: the answer equals the gold, partly, or not; it was refused without a comparison; there is none; it has
# not the form of its type (no list, no box); no parser reads it, or the gold; or the grader failed ("crash": the
# verifier raised; "lost": its process was gone; "cancelled": the pool was closed).
Code = Literal[
    "equal",
    "partial",
    "different",
    "refused",
    "no_answer",
    "bad_form",
    "bad_answer",
    "bad_gold",
    "timeout",
    "memory",
    "crash",
    "lost",
    "cancelled",
]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Score in [0, 1] of one answer, the kind of rule that decided it, and that rule in words.

    Programs branch on `code`; `reason` is for people.
    """

    score: float
    code: Code
    reason: str


@dataclasses.dataclass(frozen=True)
class Options:
    """What a verifier may need besides the two strings; hashable, so that verdicts can be cached.

    `rule` names a variant of the verifier ("" for its first, see `verifiers.RULES`). `choices` are the option texts in
    letter order. `alternatives` are further gold texts of a string. `relative_tolerance` is the largest
    |answer - gold| / |gold| at which two numbers count as equal (0: exact). `threshold` is a rule's own limit (None:
    the rule's default). `scale` multiplies the x and y of the answer's coordinates, to map them from the image the
    model saw to the one the gold refers to. `copied` says that a mathematical answer is a formula of the question,
    which only a gold of the same text lets pass. `units` are the only units that an answer may carry besides the
    gold's own (None: all that are known, (): none); `nouns` are words of the question that may stand behind a number.
    """

    rule: str = ""
    choices: tuple[str, ...] = ()
    alternatives: tuple[str, ...] = ()
    relative_tolerance: float = 0.0
    threshold: float | None = None
    scale: tuple[float, float] = (1.0, 1.0)
    copied: bool = False
    units: tuple[str, ...] | None = None
    nouns: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Question:
    """One thing to be verified: the gold answer and the extracted answer, as strings, under an answer type."""

    answer_type: str
    gold: str
    answer: str
    options: Options = Options()


def compared(score: float, reason: str) -> Verdict:
    """Make the verdict of a comparison: "equal" from 1 on, "different" at 0, "partial" between."""
    return Verdict(score, "equal" if score >= 1 else "partial" if score > 0 else "different", reason)


def refused(reason: str) -> Verdict:
    """Make the verdict on an answer that is not compared at all."""
    return Verdict(0.0, "refused", reason)
