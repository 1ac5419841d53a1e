"""Judges: any callable that scores responses, or a language model behind an OpenAI-compatible endpoint of your own.

Nothing is contacted unless `reward.judge.endpoint` is set; there is no default address.
"""

from __future__ import annotations

import contextlib
import functools
import math
import re
import time
from collections import Counter
from collections.abc import Sequence

from infimmr_jax.config import FunctionsSection, JudgeSection
from infimmr_jax.data.records import Problem
from infimmr_jax.rewards.endpoint import EndpointJudge
from infimmr_jax.rewards.functions import Failure, FunctionPool
from infimmr_jax.rewards.group import requests_to_json
from infimmr_jax.rewards.judging import Judge, JudgeError, JudgeRequest
from infimmr_jax.rewards.loading import is_ours, load_callable
from infimmr_jax.rewards.verify_string import clean_text

KEY = "reward.judge.function"


def judge_scores(judge: Judge, requests: Sequence[JudgeRequest], counters: Counter[str]) -> list[float]:
    """Scores in [0, 1]; where the judge gives no verdict, NaN, which takes the group out of training, and a count.

    JudgeError when a judge that is a function gives none at all.
    """
    replies = [_verdict(reply) for reply in judge(requests)]
    if len(replies) != len(requests):
        raise JudgeError(f"the judge returned {len(replies)} scores for {len(requests)} responses")
    missing = sum(map(math.isnan, replies))
    counters["judged"] += len(replies)
    counters["judge_failures"] += missing
    # An endpoint counts by itself how often it was silent: its next replies may be better.
    if replies and missing == len(replies) and not isinstance(judge, EndpointJudge):
        raise JudgeError(f"the judge gave no verdict on any of {len(replies)} responses")
    return replies


def _verdict(reply: object) -> float:
    """A reply as a score in [0, 1]; NaN for what is no number."""
    try:
        value = float(reply)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return math.nan
    return min(1.0, max(0.0, value)) if math.isfinite(value) else math.nan


def load_judge(
    section: JudgeSection, functions: FunctionPool | None = None, where: FunctionsSection | None = None
) -> Judge:
    """The configured judge: an endpoint, or a `module:function`.

    A function of a user runs in a process of `functions`, unless `where` says that it runs here.
    """
    if section.endpoint is not None:
        return _endpoint_judge(section)
    assert section.function is not None
    if functions is None or where is None or where.where == "trainer" or is_ours(section.function):
        return load_callable(section.function, KEY)
    functions.load(section.function, KEY, "requests", where)
    return functools.partial(_ask_process, section.function, functions, where)


def try_judge(section: JudgeSection) -> str:
    """Ask the judge one made-up question and say what came; JudgeError or JudgeAwayError, in a sentence, otherwise."""
    began = time.monotonic()
    with contextlib.closing(FunctionPool()) as functions:
        judge = load_judge(section.model_copy(update={"patience_seconds": 0.0}), functions, FunctionsSection())
        problem = Problem("made-up", "What is 2 + 3?", "5", "math")
        (score,) = judge([JudgeRequest(problem.question, problem.answer, "2 + 3 = 5, so it is 5.", "5", problem)])
    verdict = _verdict(score)
    if math.isnan(verdict):
        raise JudgeError("the judge gave no verdict on a made-up question: look at its replies, or at its prompt")
    return f"gave a right answer to a made-up question {verdict:g}, in {time.monotonic() - began:.1f} s"


def _ask_process(
    name: str, functions: FunctionPool, where: FunctionsSection, requests: Sequence[JudgeRequest]
) -> list[float]:
    (scores,) = functions.call(name, KEY, "requests", [requests_to_json(requests)], where)
    if isinstance(scores, Failure):
        raise JudgeError(f"the judge {name} failed on {len(requests)} responses: {scores.why}")
    return scores


@functools.lru_cache(maxsize=8)
def _endpoint_judge(section: JudgeSection) -> EndpointJudge:
    # One for the whole run: it remembers when it was answered last.
    return EndpointJudge(section)


def key_facts_judge(requests: Sequence[JudgeRequest]) -> list[float | None]:
    """A judge by rule: the share of `extra["key_facts"]` (short texts) that a response states, word for word.

    The reward of Perception-R1 (arXiv 2506.07218) with text matching instead of a language model; a problem without
    key facts scores 0. Use it as `function: infimmr_jax.rewards.judge:key_facts_judge`.
    """
    scores: list[float | None] = []
    for request in requests:
        facts = [f" {clean_text(str(fact))} " for fact in request.problem.extra.get("key_facts", ())]
        text = " " + re.sub(r"[^\w+-]+", " ", clean_text(request.response)) + " "
        found = sum(re.sub(r"[^\w+-]+", " ", fact) in text for fact in facts)
        scores.append(found / len(facts) if facts else 0.0)
    return scores
