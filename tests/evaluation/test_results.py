"""From grades to numbers, by hand."""

from pathlib import Path

import pytest
from published_forms import png

from infimmr_jax.data.records import DataError
from infimmr_jax.evaluation.benchmarks import BENCHMARKS, benchmark_named
from infimmr_jax.evaluation.grading import Graders, Judge
from infimmr_jax.evaluation.items import Grade, Item, MissingPicture, Response
from infimmr_jax.evaluation.markdown import results_markdown
from infimmr_jax.evaluation.requests import stored_request
from infimmr_jax.evaluation.results import EvaluationError, dry_run, score_responses

BENCHMARK = BENCHMARKS["math500"]


@pytest.fixture(scope="module")
def graders():
    with Graders(workers=1) as pool:
        yield pool


def item(identity, answer, subject="Algebra", **more):
    groups = {"subject": subject, "level": "1"}
    return Item(identity, "p", "q", answer, "math", {"answer": answer}, groups=groups, **more)


ITEMS = [item("a", "1"), item("b", "2"), item("c", "3", "Geometry")]
RESPONSES = {
    "a": [
        Response(r"\boxed{1}", tokens=10),
        Response(r"\boxed{1}", tokens=20),
        Response("no", True),
        Response(r"\boxed{5}"),
    ],
    "b": [Response(r"\boxed{7}"), Response(r"\boxed{7}"), Response(r"\boxed{2}"), Response(r"\boxed{ 7 }")],
    "c": [Response(r"\boxed{3}")] * 4,
}


def test_every_number(graders):
    result, grades = score_responses(BENCHMARK, ITEMS, RESPONSES, graders)
    assert [[grade.correct for grade in row] for row in grades][:2] == [
        [True, True, False, False],
        [False, False, True, False],
    ]
    assert result["problems"] == 3
    assert result["responses_per_problem"] == 4
    assert result["accuracy"] == pytest.approx((0.5 + 0.25 + 1) / 3, abs=1e-6)
    assert result["low"] < result["accuracy"] < result["high"]
    assert result["pass_at"]["1"]["accuracy"] == result["accuracy"]
    # With 2 of 4: a 1 - C(2,2)/C(4,2) = 5/6, b 1 - C(3,2)/C(4,2) = 1/2.
    assert result["pass_at"]["2"]["accuracy"] == pytest.approx((5 / 6 + 1 / 2 + 1) / 3, abs=1e-6)
    assert result["pass_at"]["4"]["accuracy"] == 1.0
    # The majority of b's four answers is 7.
    assert result["maj_at"]["4"]["accuracy"] == pytest.approx(2 / 3, abs=1e-6)
    assert result["maj_at"]["2"]["accuracy"] == pytest.approx(2 / 3, abs=1e-6)
    assert result["unformatted"] == pytest.approx(1 / 12, abs=1e-6)
    assert result["truncated"] == pytest.approx(1 / 12, abs=1e-6)
    assert result["mean_tokens"] == 15.0
    assert result["groups"]["subject"]["Algebra"]["accuracy"] == 0.375
    assert result["groups"]["subject"]["Geometry"]["problems"] == 1
    assert result["judge"] == "rules"
    assert result["grader_failures"] == {}
    assert result["bad_golds"] == []


def test_a_judge_replaces_the_rules_and_is_named(graders):
    judge = Judge("my judge", lambda item, text: Grade(item.id == "a", text))
    result, _ = score_responses(BENCHMARK, ITEMS, RESPONSES, graders, judge)
    assert result["accuracy"] == pytest.approx(1 / 3, abs=1e-6)
    assert result["judge"] == "my judge"
    assert result["protocol"] == "judged by my judge"


def test_missing_and_uneven_responses_are_errors(graders):
    with pytest.raises(EvaluationError, match="1 of 3 problems of MATH-500 have no response, the first is 'c'"):
        score_responses(BENCHMARK, ITEMS, {**RESPONSES, "c": []}, graders)
    with pytest.raises(EvaluationError, match=r"different numbers of responses \(1 to 4; fewest: '"):
        score_responses(BENCHMARK, ITEMS, {**RESPONSES, "c": [Response("x")]}, graders)
    with pytest.raises(EvaluationError, match="0 of 0 problems"):
        score_responses(BENCHMARK, [], {}, graders)


def test_dry_run_counts_and_finds_bad_golds_and_pictures(graders):
    items = [item("a", r"\frac{1}{2}", images=(png(), png())), item("b", ""), item("c", "1", images=(png()[:50],))]
    report = dry_run(BENCHMARK, [*items, item("d", r"\begin{x}", "Geometry")], graders)
    assert (report["problems"], report["images"], report["problems_without_image"]) == (4, 3, 2)
    assert report["groups"]["subject"] == {"Algebra": 3, "Geometry": 1}
    assert [bad["id"] for bad in report["bad_golds"]] == ["b"]
    assert [bad["id"] for bad in report["bad_images"]] == ["c"]
    assert report["text_golds"] == 2


def test_golds_that_no_response_can_reach_are_named_in_the_result(graders):
    result, _ = score_responses(
        BENCHMARK, [item("a", "1"), item("b", "")], {"a": [Response("1")], "b": [Response("")]}, graders
    )
    assert result["bad_golds"] == ["b"]
    assert "- golds that no response can reach: 1, counted as wrong (b)" in results_markdown([result])


def test_a_missing_picture_is_listed_by_the_dry_run_and_stops_no_scoring(graders):
    items = [item("a", "1", images=(MissingPicture("t.json, row 1: image 'x.png' was not found"),))]
    assert dry_run(BENCHMARK, items, graders)["bad_images"] == [{"id": "a", "reason": items[0].images[0].text}]
    result, _ = score_responses(BENCHMARK, items, {"a": [Response(r"\boxed{1}")]}, graders)
    assert result["accuracy"] == 1
    assert stored_request(BENCHMARK, items, Path("r.jsonl"))["items"]
    with pytest.raises(DataError, match=r"'x\.png' was not found"):
        items[0].problem("published")


def test_benchmarks_by_name():
    assert benchmark_named("wemath").title == "We-Math (testmini)"
    with pytest.raises(ValueError, match="there is no benchmark 'mathvers'; known: mathverse"):
        benchmark_named("mathvers")
