"""The grader pool: right grades, and survival of hanging, dying and failing graders."""

import os
import sys
from pathlib import Path

import pytest

from infimmr_jax.config import ConfigError
from infimmr_jax.evaluation.grading import Graders, Judge, judge_items, load_judge
from infimmr_jax.evaluation.items import Grade, Item

JUDGE = Judge("always right", lambda item, text: Grade(True, text))


@pytest.fixture(scope="module")
def graders():
    # The graders below are called in the worker, by name.
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        with Graders(workers=1, deadline=2.0, memory_mb=3000) as pool:
            yield pool


def make_judge():
    return JUDGE


def hang(_):
    while True:
        pass


def die(_):
    os._exit(1)


def eat(_):
    return Grade(True, str(len(bytearray(8 << 30))))


def fail(_):
    raise ValueError("no such thing")


def echo(text):
    return Grade(True, text)


def test_grades_come_back_in_order(graders):
    golds = [{"answer": str(number)} for number in range(20)]
    texts = [f"<think>I first thought \\boxed{{99}}</think>\\boxed{{{number % 3}}}" for number in range(20)]
    grades = graders.grade("math500", golds, texts)
    assert [grade.correct for grade in grades] == [number < 3 for number in range(20)]
    assert grades[4].extracted == "1"


def test_only_text_after_the_thinking_counts(graders):
    gold = {"answer": "4"}
    (grade,) = graders.grade("math500", [gold], ["<think>\\boxed{4}"])
    assert grade == Grade(False, None, "no text after the thinking")


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (hang, "the grader timed out after 2 s"),
        (die, "the grader died"),
        (eat, "the grader failed: MemoryError"),
        (fail, "the grader failed: ValueError: no such thing"),
    ],
)
def test_a_bad_grader_costs_only_its_own_answer(graders, function, reason):
    first, *others = graders.apply(function, [(1,)]) + graders.apply(echo, [("a",), ("b",)])
    assert not first.correct
    assert first.reason.startswith(reason)
    assert [other.extracted for other in others] == ["a", "b"]


def test_judges():
    item = Item("1", "p", "q", "4", "math", {"answer": "4"})
    assert judge_items(JUDGE, [item], ["<think>x</think>yes"]) == [Grade(True, "yes")]
    assert load_judge("test_grading:JUDGE") is JUDGE
    assert load_judge("test_grading:make_judge") is JUDGE
    for name, sentence in {
        "nowhere:x": r"--judge 'nowhere:x' can not be loaded: .* give it as module:attribute",
        "json:nothing": "--judge 'json:nothing' can not be loaded",
        "json": "--judge 'json' is not of the form module:attribute",
        "test_grading:hang": "gives a function: it must name an infimmr_jax.evaluation.grading.Judge",
        "collections:OrderedDict": "gives a ",
    }.items():
        with pytest.raises(ConfigError, match=sentence):
            load_judge(name)


def test_a_judge_may_lie_in_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "judge_beside.py").write_text(
        "from infimmr_jax.evaluation.grading import Judge\nJUDGE = Judge('beside', lambda item, text: None)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    assert load_judge("judge_beside:JUDGE").name == "beside"
