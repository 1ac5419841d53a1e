"""From responses to scores: extract, route by answer type, one number per component, never only their sum."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from infimmr_jax.config import RewardSection
from infimmr_jax.config.reward import TERMS
from infimmr_jax.data.records import Problem
from infimmr_jax.rewards.combine import combined
from infimmr_jax.rewards.components import Tools, component_scores
from infimmr_jax.rewards.extract import Extraction, safe_extract
from infimmr_jax.rewards.format import format_error
from infimmr_jax.rewards.group import Group
from infimmr_jax.rewards.judge import load_judge
from infimmr_jax.rewards.judging import Judge
from infimmr_jax.rewards.pool import GraderPool
from infimmr_jax.rewards.questions import question_of
from infimmr_jax.rewards.second_pass import Generate
from infimmr_jax.rewards.verdict import Code, Verdict


@dataclasses.dataclass(frozen=True)
class Scores:
    """Scores of P groups of G responses.

    `components` by name, each float32 [P, G] ("accuracy" and "format" always); `total` their combination;
    `extracted` the answers found (None: none) and `reasons` what decided each accuracy, and behind a bar why the
    format does not match; `codes` the kinds of those verdicts; `counters` of the grading: graded, cached, timeouts,
    crashes, out_of_memory, unparsable, and those of judges and second passes.
    """

    components: dict[str, Float[np.ndarray, "P G"]]
    total: Float[np.ndarray, "P G"]
    extracted: list[list[str | None]]
    reasons: list[list[str]]
    codes: list[list[Code]]
    counters: dict[str, int]


def score_groups(
    problems: Sequence[Problem],
    responses: Sequence[Sequence[str]],
    finished: Bool[np.ndarray, "P G"],
    lengths: Int[np.ndarray, "P G"],
    reward: RewardSection,
    response_format: str,
    pool: GraderPool,
    *,
    generate: Generate | None = None,
    judge: Judge | None = None,
    max_response: int | None = None,
    count_tokens: Callable[[str], int] | None = None,
) -> Scores:
    """Score G responses to each of P problems.

    `finished` is False where a response was cut at its length limit, `lengths` are in tokens. A response that was cut
    is scored like any other: cut inside the answer it has no answer and does not match the format. `generate` lets
    second-pass components ask the policy again; `judge` replaces the configured one; the component `length` needs the
    response limit `max_response` and, for answers, `count_tokens`. Rewards of user functions may be NaN. May be called
    from any thread.
    """
    before = Counter(pool.counters)
    faults: Counter[str] = Counter()
    found = [[safe_extract(text, response_format, faults) for text in group] for group in responses]
    verdicts = _verdicts(problems, found, reward, pool)
    errors = [[_format_fault(text, response_format, faults) for text in group] for group in responses]
    components = {
        "accuracy": np.asarray([[verdict.score for verdict in group] for group in verdicts], np.float32),
        "format": np.asarray([[error is None for error in group] for group in errors], np.float32),
    }
    # Lengths and repetitions may ask what another component found right.
    others = sorted((name for name in reward.weights if name not in components), key=TERMS.__contains__)
    if others:
        if judge is None and reward.judge is not None:
            judge = load_judge(reward.judge, pool.functions, reward.functions)
        tools = Tools(reward, response_format, pool, generate, judge, max_response, count_tokens)
        for name in others:
            groups = [
                Group(
                    problem,
                    tuple(responses[row]),
                    tuple(extraction.answer for extraction in found[row]),
                    np.asarray(finished[row]),
                    np.asarray(lengths[row]),
                    {known: scores[row] for known, scores in components.items()},
                )
                for row, problem in enumerate(problems)
            ]
            components[name] = component_scores(name, groups, tools)
        faults += tools.counters
    before.subtract(faults)
    total = combined(components, reward)
    counters = {key: pool.counters[key] - before[key] for key in {*pool.counters, *before}}
    return Scores(
        components=components,
        total=total,
        extracted=[[extraction.answer for extraction in group] for group in found],
        reasons=[list(map(_reason, *row)) for row in zip(found, verdicts, errors, strict=True)],
        codes=[[verdict.code for verdict in group] for group in verdicts],
        counters={key: number for key, number in sorted(counters.items()) if number},
    )


def grade_ahead(
    early: Sequence[tuple[Problem, str]], reward: RewardSection, response_format: str, pool: GraderPool
) -> None:
    """Begin to verify responses before their groups are whole; `score_groups` then finds the verdicts.

    Only what rules decide is begun: judges and functions of users see whole groups.
    """
    found = [(problem, safe_extract(text, response_format).answer) for problem, text in early]
    pool.begin([question_of(problem, answer, reward) for problem, answer in found if answer is not None])


def _format_fault(text: str, response_format: str, counters: Counter[str]) -> str | None:
    try:
        return format_error(text, response_format)
    except Exception as error:
        counters["crashes"] += 1
        return f"crash: {type(error).__name__}"


def _verdicts(
    problems: Sequence[Problem], found: list[list[Extraction]], reward: RewardSection, pool: GraderPool
) -> list[list[Verdict]]:
    """A verdict on every extraction; a response without an answer scores 0 for the reason nothing was found."""
    verdicts = [[Verdict(0.0, "no_answer", extraction.rule) for extraction in group] for group in found]
    places = [(row, i) for row, group in enumerate(found) for i, one in enumerate(group) if one.answer is not None]
    questions = [question_of(problems[row], found[row][i].answer or "", reward) for row, i in places]
    for (row, i), verdict in zip(places, pool.verify(questions), strict=True):
        verdicts[row][i] = verdict
    return verdicts


def _reason(extraction: Extraction, verdict: Verdict, format_fault: str | None) -> str:
    decided = extraction.rule if extraction.answer is None else f"{extraction.rule}; {verdict.reason}"
    return decided if format_fault is None else f"{decided} | format: {format_fault}"


__all__ = ["Scores", "grade_ahead", "score_groups"]
