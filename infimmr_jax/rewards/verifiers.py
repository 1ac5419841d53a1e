"""The verifiers by answer type: what can be decided at once, and what needs a grader process."""

from __future__ import annotations

from collections.abc import Callable

from infimmr_jax.rewards.verdict import Options, Question, Verdict
from infimmr_jax.rewards.verify_choice import verify_choice
from infimmr_jax.rewards.verify_math import decide, refusal, verify_gold, verify_math
from infimmr_jax.rewards.verify_string import verify_string

# Quick verifiers are linear in the (bounded) length of the strings and run in the trainer; None means "ask a worker".
QUICK: dict[str, Callable[[str, str, Options], Verdict | None]] = {
    "math": decide,
    "choice": verify_choice,
    "string": verify_string,
    "gold": lambda gold, answer, options: None,
}
SLOW: dict[str, Callable[[str, str, Options], Verdict]] = {
    "math": verify_math,
    "gold": verify_gold,
}
ANSWER_TYPES = tuple(name for name in QUICK if name != "gold")


def quick_verdict(question: Question) -> Verdict | None:
    """The verdict where it can be had in the calling process, None where a grader process is needed."""
    if question.answer_type not in QUICK:
        raise ValueError(f"answer type {question.answer_type!r} has no verifier; known: {', '.join(QUICK)}")
    why = refusal(question.answer)
    if why:
        return Verdict(0.0, why)
    return QUICK[question.answer_type](question.gold, question.answer, question.options)


def slow_verdict(question: Question) -> Verdict:
    """The verdict, however long it takes: call it in a process that may be killed."""
    return SLOW[question.answer_type](question.gold, question.answer, question.options)


__all__ = ["ANSWER_TYPES", "QUICK", "SLOW", "quick_verdict", "slow_verdict"]
