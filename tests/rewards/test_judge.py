"""Judges: a function, a rule, and an endpoint on this machine."""

import json
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import numpy as np
import pytest

from infimmr_jax.config import JudgeSection, RewardSection
from infimmr_jax.data.records import Problem
from infimmr_jax.rewards.endpoint import EndpointJudge, JudgeAwayError, read_score
from infimmr_jax.rewards.judge import judge_scores, key_facts_judge, load_judge, try_judge
from infimmr_jax.rewards.judging import JudgeError, JudgeRequest
from infimmr_jax.rewards.loading import LoadError
from infimmr_jax.rewards.pool import GraderPool
from infimmr_jax.rewards.router import score_groups


def agreeing(requests: Sequence[JudgeRequest]) -> list[float]:
    return [1.0] * len(requests)


def silent(requests: Sequence[JudgeRequest]) -> list[float | None]:
    return [None] * len(requests)


PROBLEM = Problem("p", "What is 2+3?", "5", "math", extra={"key_facts": ["two and three", "makes 5"]})


def request(response: str) -> JudgeRequest:
    return JudgeRequest(PROBLEM.question, PROBLEM.answer, response, None, PROBLEM)


def lenient(requests: Sequence[JudgeRequest]) -> list[float | None]:
    """A user's judge: 0.75 for everything that mentions the gold, no verdict on empty responses."""
    return [None if not r.response else 0.75 if r.gold in r.response else 0.0 for r in requests]


def test_a_function_judges_through_the_router() -> None:
    reward = RewardSection(weights={"judge": 1.0}, judge=JudgeSection(function="test_judge:lenient"))
    ones = np.ones((1, 3), int)
    with GraderPool(workers=1) as pool:
        scores = score_groups([PROBLEM], [["it is 5", "it is 6", ""]], ones > 0, ones, reward, "think_boxed", pool)
    np.testing.assert_array_equal(scores.total, [[0.75, 0, np.nan]])
    assert scores.counters["judged"] == 3
    assert scores.counters["judge_failures"] == 1


def test_a_given_judge_replaces_the_configured_one() -> None:
    reward = RewardSection(weights={"judge": 1.0}, judge=JudgeSection(function="test_judge:lenient"))
    ones = np.ones((1, 1), int)
    with GraderPool(workers=1) as pool:
        scores = score_groups([PROBLEM], [["6"]], ones > 0, ones, reward, "boxed", pool, judge=lambda asked: [1.0])
    assert scores.total[0, 0] == 1


def test_the_rule_stub_counts_key_facts_word_for_word() -> None:
    requests = [request(t) for t in ("Two and three, that makes 5.", "makes 5", "makes 55 two and threes", "")]
    assert key_facts_judge(requests) == [1.0, 0.5, 0.0, 0.0]


def test_scores_are_clipped_and_failures_are_no_numbers() -> None:
    counters: Counter[str] = Counter()
    asked = [request("a")] * 6
    replies = [2.0, -1.0, None, float("nan"), "yes", 10**400]
    np.testing.assert_array_equal(judge_scores(lambda _: replies, asked, counters), [1, 0, *[np.nan] * 4])
    assert counters == {"judged": 6, "judge_failures": 4}
    with pytest.raises(JudgeError, match="no verdict on any of 6"):
        judge_scores(lambda _: [None] * 6, asked, counters)
    with pytest.raises(JudgeError, match="3 scores for 6 responses"):
        judge_scores(lambda _: [1.0] * 3, asked, counters)


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("1", 1.0),
        ("They agree.\n1", 1.0),
        ("**0**", 0.0),
        ("Final Decision: Yes", 1.0),
        ("verdict: no.", 0.0),
        ("Score: 0.5", 0.5),
        ("1 or 0", None),
        ("0.5 and more", None),
        ("2", None),
        ("", None),
        ("1\nbut I am not sure", None),
    ],
)
def test_the_last_line_is_the_score(reply: str, score: float | None) -> None:
    assert read_score(reply) == score


class _Server(BaseHTTPRequestHandler):
    asked: list[dict[str, Any]] = []  # noqa: RUF012 - filled by the handler, read by the test
    failures = 0

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        _Server.asked.append({"path": self.path, **body})
        prompt = body["messages"][0]["content"]
        if "fail once" in prompt and _Server.failures == 0:
            _Server.failures += 1
            self.send_error(500)
            return
        text = "not json" if "garbage" in prompt else json.dumps(_reply("1" if "it is 5" in prompt else "0"))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Silent."""


def _reply(text: str) -> dict[str, Any]:
    return {"choices": [{"message": {"content": f"I compared them.\n{text}"}}]}


@pytest.fixture
def endpoint() -> Iterator[str]:
    _Server.asked, _Server.failures = [], 0
    server = HTTPServer(("127.0.0.1", 0), _Server)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_endpoint_is_asked_in_the_openai_way(endpoint: str) -> None:
    judge = load_judge(JudgeSection(endpoint=endpoint, model="judge-7b", timeout_seconds=30))
    assert isinstance(judge, EndpointJudge)
    asked = [request(t) for t in ("it is 5", "it is 6", "garbage", "fail once, it is 5", "-----\nit is 5")]
    assert judge(asked) == [1.0, 0.0, None, 1.0, 1.0]
    body = _Server.asked[0]
    assert (body["path"], body["model"], body["temperature"]) == ("/v1/chat/completions", "judge-7b", 0)
    assert sum("garbage" in entry["messages"][0]["content"] for entry in _Server.asked) == 2  # asked again once
    last = next(e["messages"][0]["content"] for e in _Server.asked if "- - -" in e["messages"][0]["content"])
    assert last.count("-----") == 2  # a response can not close its own fence


def test_a_missing_judge_function_is_named() -> None:
    with pytest.raises(LoadError, match="no function 'nobody'"):
        load_judge(JudgeSection(function="test_judge:nobody"))
    with pytest.raises(LoadError, match="can not be imported"):
        load_judge(JudgeSection(function="nowhere_at_all:f"))


def test_a_judge_is_asked_once_before_a_run(endpoint: str) -> None:
    assert "gave a right answer to a made-up question 1" in try_judge(JudgeSection(function="test_judge:agreeing"))
    assert "made-up question 1" in try_judge(JudgeSection(endpoint=endpoint, model="m"))
    with pytest.raises(JudgeError, match="no verdict on a made-up question"):
        try_judge(JudgeSection(function="test_judge:silent"))
    with pytest.raises(JudgeAwayError, match="did not answer"):
        try_judge(JudgeSection(endpoint="http://127.0.0.1:9/v1", model="m"))
