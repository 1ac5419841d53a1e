"""Whether a gold answer can be graded at all, asked when data are read, before training starts."""

from __future__ import annotations

from collections.abc import Sequence

from infimmr_jax.data.records import Problem
from infimmr_jax.rewards.numbers import parse_number
from infimmr_jax.rewards.pool import GraderPool
from infimmr_jax.rewards.verdict import Options, Question
from infimmr_jax.rewards.verifiers import QUICK, quick_verdict
from infimmr_jax.rewards.verify_choice import letter_of
from infimmr_jax.rewards.verify_string import clean_text


def check_gold(problem: Problem, pool: GraderPool | None = None) -> str | None:
    """A sentence saying why a problem's gold answer can not be graded, or None.

    LaTeX golds are parsed by `pool`; without one only what the text shows is checked.
    """
    return check_golds([problem], pool)[0]


def check_golds(problems: Sequence[Problem], pool: GraderPool | None = None) -> list[str | None]:
    """`check_gold` of many problems: plain numbers, letters and texts at once, LaTeX through the pool's processes."""
    said = [_check_text(problem) for problem in problems]
    if pool is None:
        return said
    asked = [
        i
        for i, problem in enumerate(problems)
        if said[i] is None and problem.answer_type == "math" and parse_number(problem.answer) is None
    ]
    # A gold is gradable when the whole way through the worker says something else than "unparsable gold".
    questions = [Question("math gold", problems[i].answer, problems[i].answer, Options()) for i in asked]
    for i, verdict in zip(asked, pool.verify(questions), strict=True):
        if verdict.score != 1.0:
            said[i] = f"the math answer {_short(problems[i].answer)} can not be graded: {verdict.reason}"
    return said


def _check_text(problem: Problem) -> str | None:
    answer = problem.answer
    if not answer.strip():
        return "the answer is empty"
    if problem.answer_type == "choice":
        letter, why = letter_of(answer, problem.choices)
        if letter is None:
            return f"the choice answer {_short(answer)} does not name one of {len(problem.choices)} options: {why}"
    if problem.answer_type == "string" and not clean_text(answer):
        return f"the string answer {_short(answer)} holds nothing to compare"
    if problem.answer_type not in QUICK:
        return f"the answer type {problem.answer_type!r} has no verifier; known: {', '.join(QUICK)}"
    rule = str((problem.extra.get("verify") or {}).get("rule", ""))
    verdict = quick_verdict(Question(problem.answer_type, answer, answer, Options(rule=rule, choices=problem.choices)))
    if verdict is not None and verdict.reason.startswith("unparsable gold"):
        return f"the {problem.answer_type} answer {_short(answer)} can not be graded: {verdict.reason}"
    return None


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


__all__ = ["check_gold", "check_golds"]
