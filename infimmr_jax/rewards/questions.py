"""What a problem and the configuration ask of a verifier."""

from __future__ import annotations

import dataclasses
import re

from infimmr_jax.config import RewardSection
from infimmr_jax.data.records import DataError, Problem
from infimmr_jax.names import RULES
from infimmr_jax.rewards.copying import copied
from infimmr_jax.rewards.math.measures import is_unit_word
from infimmr_jax.rewards.regions import resize_scale
from infimmr_jax.rewards.verdict import Options, Question

KNOWN = ("rule", "tolerance", "threshold", "alternatives", "units")

_NOUNS = re.compile(r"[^\W\d_]{3,}")
MAX_QUESTION = 20_000


def question_of(problem: Problem, answer: str, reward: RewardSection) -> Question:
    """The question "is `answer` right?" with the options of `options_of`, and whether the problem itself was copied."""
    options = options_of(problem, reward)
    if problem.answer_type == "math" and copied(problem.question, answer):
        options = dataclasses.replace(options, copied=True)
    if problem.answer_type in ("math", "number") and len(problem.question) <= MAX_QUESTION:
        options = dataclasses.replace(options, nouns=_nouns(problem.question, answer))
    return Question(problem.answer_type, problem.answer, answer, options)


def _nouns(question: str, answer: str) -> tuple[str, ...]:
    """The words behind the answer's number that the question has as well: they may be what is counted."""
    words = {word for word in _NOUNS.findall(answer[-60:].casefold()) if not is_unit_word(word)}
    return tuple(sorted(words & set(_NOUNS.findall(question.casefold())))) if words else ()


def options_of(problem: Problem, reward: RewardSection) -> Options:
    """The verifier's options for a problem: the configuration, overridden by the row's own `verify` object.

    `extra["verify"]` may hold `rule`, `tolerance`, `threshold`, `alternatives` and `units` (the only units that an
    answer may carry besides the gold's own; []: none). Where `extra["image_size"]` (the image that the gold coordinates
    refer to) and `extra["seen_size"]` (the one the policy saw, after resizing), both [width, height], are given, the
    answer's coordinates are mapped from the latter to the former. DataError names a key or rule that is not known.
    """
    given: object = problem.extra.get("verify") or {}
    if not isinstance(given, dict):
        raise DataError(f"problem {problem.id}: `verify` is a {type(given).__name__}, not an object with keys")
    # A parquet column of objects has every key in every row, most of them null.
    own = {key: value for key, value in given.items() if value is not None}
    unknown = [key for key in own if key not in KNOWN]
    if unknown:
        raise DataError(f"problem {problem.id}: verify.{unknown[0]} is not known; known: {', '.join(KNOWN)}")
    for key in ("tolerance", "threshold"):
        if isinstance(own.get(key, 0), bool) or not isinstance(own.get(key, 0), int | float):
            raise DataError(f"problem {problem.id}: verify.{key} is {own[key]!r}; it must be a number")
    for key in ("alternatives", "units"):
        if not isinstance(own.get(key, []), list):
            raise DataError(f"problem {problem.id}: verify.{key} is {own[key]!r}; it must be a list")
    rule = str(own.get("rule", reward.rules.get(problem.answer_type, "")))
    if rule and rule not in RULES.get(problem.answer_type, ()):
        known = ", ".join(RULES.get(problem.answer_type, ()))
        raise DataError(f"problem {problem.id}: type {problem.answer_type} has no rule {rule!r}; it has {known}")
    seen, original = problem.extra.get("seen_size"), problem.extra.get("image_size")
    threshold = own.get("threshold")
    return Options(
        rule=rule,
        choices=problem.choices,
        alternatives=tuple(str(text) for text in own.get("alternatives", ())),
        relative_tolerance=float(own.get("tolerance", reward.relative_tolerance)),
        threshold=None if threshold is None else float(threshold),
        units=tuple(str(unit) for unit in own["units"]) if "units" in own else None,
        scale=resize_scale(tuple(seen), tuple(original)) if seen and original else (1.0, 1.0),
    )


__all__ = ["options_of", "question_of"]
