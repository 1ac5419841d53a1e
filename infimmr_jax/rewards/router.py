"""From responses to scores: extract, route by answer type, one number per component, never only their sum."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from infimmr_jax.config import RewardSection
from infimmr_jax.data.records import Problem
from infimmr_jax.rewards.extract import Extraction, extract
from infimmr_jax.rewards.format import format_error
from infimmr_jax.rewards.pool import GraderPool
from infimmr_jax.rewards.verdict import Options, Question, Verdict


@dataclasses.dataclass(frozen=True)
class Scores:
    """Scores of P groups of G responses.

    `components` by name, each float32 [P, G] ("accuracy" and "format" always); `total` their weighted sum;
    `extracted` the answers found (None: none) and `reasons` what decided each accuracy; `counters` of the grading.
    """

    components: dict[str, Float[np.ndarray, "P G"]]
    total: Float[np.ndarray, "P G"]
    extracted: list[list[str | None]]
    reasons: list[list[str]]
    counters: dict[str, int]


def options_of(problem: Problem, reward: RewardSection) -> Options:
    """What the verifier of a problem needs besides the two strings."""
    return Options(choices=problem.choices)


def score_groups(
    problems: Sequence[Problem],
    responses: Sequence[Sequence[str]],
    finished: Bool[np.ndarray, "P G"],
    lengths: Int[np.ndarray, "P G"],
    reward: RewardSection,
    response_format: str,
    pool: GraderPool,
) -> Scores:
    """Score G responses to each of P problems.

    `finished` is False where a response was cut at its length limit, `lengths` are in tokens. A response that was cut
    is scored like any other: cut inside the answer it has no answer and does not match the format.
    """
    before = dict(pool.counters)
    found = [[extract(text, response_format) for text in group] for group in responses]
    verdicts = _accuracy(problems, found, reward, pool)
    errors = [[format_error(text, response_format) for text in group] for group in responses]
    components = {
        "accuracy": _array([[verdict.score for verdict in group] for group in verdicts]),
        "format": _array([[float(error is None) for error in group] for group in errors]),
    }
    total = sum((weight * components[name] for name, weight in reward.weights.items()), _array(finished) * 0)
    return Scores(
        components=components,
        total=np.asarray(total, np.float32),
        extracted=[[extraction.answer for extraction in group] for group in found],
        reasons=[
            [_reason(extraction, verdict) for extraction, verdict in zip(*pair, strict=True)]
            for pair in zip(found, verdicts, strict=True)
        ],
        counters={key: value - before.get(key, 0) for key, value in pool.counters.items()},
    )


def _accuracy(
    problems: Sequence[Problem], found: list[list[Extraction]], reward: RewardSection, pool: GraderPool
) -> list[list[Verdict]]:
    questions, places = [], []
    verdicts = [[Verdict(0.0, extraction.rule) for extraction in group] for group in found]
    for row, (problem, group) in enumerate(zip(problems, found, strict=True)):
        options = options_of(problem, reward)
        for column, extraction in enumerate(group):
            if extraction.answer is not None:
                questions.append(Question(problem.answer_type, problem.answer, extraction.answer, options))
                places.append((row, column))
    for (row, column), verdict in zip(places, pool.verify(questions), strict=True):
        verdicts[row][column] = verdict
    return verdicts


def _reason(extraction: Extraction, verdict: Verdict) -> str:
    return extraction.rule if extraction.answer is None else f"{extraction.rule}; {verdict.reason}"


def _array(values: object) -> Float[np.ndarray, "P G"]:
    return np.asarray(values, np.float32)


__all__ = ["Scores", "options_of", "score_groups"]
