"""Hand-checked cases: what every verifier says of bare answers, and the whole way of whole responses."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infimmr_jax.config import RewardSection
from infimmr_jax.data.records import Problem
from infimmr_jax.names import ANSWER_TYPES
from infimmr_jax.rewards.format import FORMATS
from infimmr_jax.rewards.pool import GraderPool
from infimmr_jax.rewards.router import score_groups
from infimmr_jax.rewards.verdict import Options, Question
from infimmr_jax.rewards.verifiers import quick_verdict, slow_verdict

CASES = Path(__file__).parent / "cases"


def _table(name: str) -> list[dict[str, str]]:
    lines = (line for line in (CASES / name).open(encoding="utf-8") if not line.startswith("#"))
    return list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))


def _options(text: str) -> Options:
    fields: dict[str, Any] = json.loads(text or "{}")
    return Options(**{key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()})


@pytest.mark.parametrize("case", _table("answers.tsv"), ids=lambda case: f"{case['gold']}<-{case['answer']}")
def test_answer(case: dict[str, str]) -> None:
    question = Question(case["type"], case["gold"], case["answer"], _options(case["options"]))
    verdict = quick_verdict(question) or slow_verdict(question)
    assert verdict.score == pytest.approx(float(case["score"]), abs=1e-6), verdict.reason
    assert verdict.reason


@pytest.fixture(scope="module")
def pool() -> Any:
    with GraderPool(workers=1) as pool:
        yield pool


@pytest.mark.parametrize("case", _table("responses.tsv"), ids=lambda case: f"{case['format']}:{case['response']}")
def test_response(case: dict[str, str], pool: GraderPool) -> None:
    problem = Problem("p", "q", case["gold"], case["type"])  # type: ignore[arg-type]
    response = case["response"].replace("⏎", "\n")
    one = np.ones((1, 1), int)
    scores = score_groups([problem], [[response]], one > 0, one, RewardSection(), case["format"], pool)
    assert scores.components["accuracy"][0, 0] == float(case["accuracy"]), scores.reasons
    assert scores.components["format"][0, 0] == float(case["format_score"]), scores.reasons


def test_nothing_wrong_hedged_or_unfinished_is_rewarded(pool: GraderPool) -> None:
    cases = _table("refused.tsv")
    assert len(cases) >= 900
    verdicts = pool.verify([Question(c["type"], c["gold"], c["answer"], _options(c["options"])) for c in cases])
    rewarded = [(c["gold"], c["answer"], v.reason) for c, v in zip(cases, verdicts, strict=True) if v.score]
    assert rewarded == []
    assert pool.counters["timeouts"] == pool.counters["crashes"] == 0


def test_the_tables_are_large_and_cover_every_type_and_format() -> None:
    answers, responses = _table("answers.tsv"), _table("responses.tsv")
    assert len(answers) >= 500
    assert len(responses) >= 120
    assert {case["type"] for case in answers} == set(ANSWER_TYPES)
    assert {case["format"] for case in responses} == set(FORMATS)
    assert sum(float(case["score"]) == 0 for case in answers) >= 200
