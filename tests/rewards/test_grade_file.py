"""Grading a file: every key kept, scores and reasons added, bad rows named, nothing half written."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from infimmr_jax.config import RewardSection, RunConfig
from infimmr_jax.data.records import DataError
from infimmr_jax.rewards.grade_file import grade_file
from infimmr_jax.rewards.judging import JudgeRequest

ROW = {"question": "2+3?", "answer": "5", "answer_type": "math", "response": r"<think>a</think> \boxed{5}"}


def config(**reward: Any) -> RunConfig:
    phase = {"name": "text", "modality": "text", "steps": 1, "sources": [{"reader": "jsonl", "path": "x.jsonl"}]}
    return RunConfig.model_validate({"phases": [phase], "reward": RewardSection(**reward)})


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_answers_have_the_forms_of_training_data(tmp_path: Path) -> None:
    said = {"response_format": "plain"}
    rows = [
        {**ROW, **said, "answer_type": "list", "answer": ["a", 2], "response": "[a, 2]"},
        # Shown at half its size: the answer's left half of the gold box.
        {**ROW, **said, "answer_type": "box", "answer": [0, 0, 40, 20], "response": "[0, 0, 10, 10]"}
        | {"image_size": [200, 100], "seen_size": [100, 50]},
    ]
    out = tmp_path / "graded.jsonl"
    grade_file(write(tmp_path / "in.jsonl", rows), out, config())
    graded = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [(row["answer"], row["accuracy"]) for row in graded] == [(["a", 2], 1.0), ([0, 0, 40, 20], 0.5)]
    with pytest.raises(DataError, match="line 1: `answer` is a int; with answer_type 'list'"):
        grade_file(write(tmp_path / "bad.jsonl", [{**rows[0], "answer": 3}]), out, config())


def test_rows_come_back_in_order_with_every_key(tmp_path: Path) -> None:
    rows = [
        {**ROW, "id": "a", "mine": {"deep": [1]}},
        {**ROW, "response": r"\boxed{6}"},
        {
            **ROW,
            "answer_type": "choice",
            "answer": "B",
            "choices": ["x", "y"],
            "response": r"<think>a</think>\boxed{y}",
        },
        {**ROW, "answer": r"\sqrt{8}", "response": r"<think>ä</think>\boxed{2\sqrt{2}}"},
        {**ROW, "response_format": "plain", "response": "5"},
        {**ROW, "answer": "x", "response": r"<think>a</think>\boxed{9^{9^{9}}}"},
        {**ROW, "response": "no answer here"},
    ]
    out = tmp_path / "new" / "graded.jsonl"
    summary = grade_file(write(tmp_path / "in.jsonl", rows), out, config(weights={"accuracy": 0.9, "format": 0.1}))
    graded = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    for before, after in zip(rows, graded, strict=True):
        assert before.items() <= after.items()
        assert set(after) - set(before) == {"accuracy", "format", "reward", "extracted", "code", "reason"}
    assert [row["accuracy"] for row in graded] == [1, 0, 1, 1, 1, 0, 0]
    assert [row["format"] for row in graded] == [1, 0, 1, 1, 1, 1, 0]
    assert [row["extracted"] for row in graded] == ["5", "6", "y", r"2\sqrt{2}", "5", "9^{9^{9}}", None]
    assert graded[0]["reason"] == "box; numbers equal"
    assert graded[5]["reason"] == "box; refused: a power tower"
    assert graded[6]["reason"].startswith("no answer marked")
    assert graded[0]["reward"] == pytest.approx(1.0)
    assert summary.rows == 7
    assert summary.means["accuracy"] == pytest.approx(4 / 7)
    assert summary.means["format"] == pytest.approx(5 / 7)
    assert summary.answered == pytest.approx(6 / 7)
    assert summary.counters["graded"] == 6
    assert list((tmp_path / "new").iterdir()) == [out]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"question": "q", "answer": "1", "answer_type": "math"}, "line 2: `response` is missing"),
        ({**ROW, "answer": 5}, "line 2: `answer` is missing or not a text"),
        ({**ROW, "answer_type": "maths"}, "line 2: `answer_type` is 'maths'"),
        ({**ROW, "response_format": "thinking"}, "line 2: `response_format` is 'thinking'"),
        ({**ROW, "choices": "AB"}, "line 2: `choices` must be a list"),
        ([1], "line 2: the row is a list"),
    ],
)
def test_a_bad_row_is_named_and_nothing_is_written(tmp_path: Path, row: Any, said: str) -> None:
    out = tmp_path / "graded.jsonl"
    with pytest.raises(DataError, match=said):
        grade_file(write(tmp_path / "in.jsonl", [ROW, row]), out, config())
    assert not out.exists()


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="can not be read"):
        grade_file(tmp_path / "missing.jsonl", tmp_path / "out.jsonl", config())
    with pytest.raises(DataError, match="holds no rows"):
        grade_file(write(tmp_path / "empty.jsonl", []), tmp_path / "out.jsonl", config())
    path = write(tmp_path / "in.jsonl", [ROW])
    with pytest.raises(DataError, match="choose another place"):
        grade_file(path, path, config())
    path.write_text("{not json}\n")
    with pytest.raises(DataError, match="line 1: not valid JSON"):
        grade_file(path, tmp_path / "out.jsonl", config())


def test_more_rows_than_a_chunk(tmp_path: Path) -> None:
    rows = [{**ROW, "id": str(i), "response": rf"<think>a</think> \boxed{{{i}}}"} for i in range(600)]
    out = tmp_path / "out.jsonl"
    assert grade_file(write(tmp_path / "in.jsonl", rows), out, config()).means["accuracy"] == pytest.approx(1 / 600)
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == [str(i) for i in range(600)]


def test_rows_that_were_not_compared_are_named(tmp_path: Path) -> None:
    rows = [
        {**ROW, "id": "fine"},
        {**ROW, "id": "gold", "answer": r"\angle 3 \cong \angle Z"},
        {**ROW, "answer": "x+1", "response": r"<think>a</think> \boxed{x+}"},
    ]
    summary = grade_file(write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl", config())
    assert summary.not_compared == {"bad_answer": ["row 3"], "bad_gold": ["row 2 (gold)"]}
    graded = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["code"] for row in graded] == ["equal", "bad_gold", "bad_answer"]


def test_a_row_says_which_units_an_answer_may_carry(tmp_path: Path) -> None:
    said = {"answer": "12", "response": r"<think>a</think> \boxed{12 cm}"}
    noun = {"answer": "12", "response": r"<think>a</think> \boxed{12 widgets}"}
    rows = [
        {**ROW, **said},
        {**ROW, **said, "verify": {"units": []}},
        {**ROW, **said, "verify": {"units": ["centimetres"]}},
        {**ROW, **said, "verify": {"units": ["km"]}},
        {**ROW, **noun},
        {**ROW, **noun, "question": "How many widgets are made?"},
        {**ROW, **noun, "verify": {"units": ["widget"]}},
    ]
    out = tmp_path / "out.jsonl"
    grade_file(write(tmp_path / "in.jsonl", rows), out, config())
    graded = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [row["accuracy"] for row in graded] == [1, 0, 1, 0, 0, 1, 1]


def doubting(requests: Sequence[JudgeRequest]) -> list[float | None]:
    """A judge that says nothing about long responses."""
    return [None if len(request.response) > 20 else 0.5 for request in requests]


def test_without_a_verdict_there_is_no_number_and_any_text_is_written(tmp_path: Path) -> None:
    rows = [{**ROW, "id": "half \ud800", "response": "5"}, {**ROW, "id": "b", "response": "x" * 30}]
    path = write(tmp_path / "in.jsonl", rows)
    judged = config(weights={"judge": 1.0}, judge={"function": "test_grade_file:doubting"})
    summary = grade_file(path, tmp_path / "out.jsonl", judged)
    graded = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["id"] for row in graded] == ["half \ud800", "b"]
    assert [row["judge"] for row in graded] == [0.5, None]
    assert [row["reward"] for row in graded] == [0.5, None]
    assert summary.means["judge"] == 0.5
