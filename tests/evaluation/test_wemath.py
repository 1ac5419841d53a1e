"""We-Math: reading, letters, and the four-dimensional metrics by hand."""

import pytest
from published_forms import picture_file, write_json

from infimmr_jax.data.records import DataError
from infimmr_jax.evaluation.wemath import grade, read, summary

GOLD = {"answer": "B"}


def rows(count=1, steps=2):
    made = []
    for number in range(1, count + 1):
        for part in [*map(str, range(1, steps + 1)), "multi"]:
            made.append(
                {"ID": f"{steps}steps_{number}", "key": f"{steps}steps_{part}", "question": "q?", "answer": "B"}
            )
            made[-1] |= {"option": "A. 1; B. 2; E. No correct answer", "image_path": f"{steps}steps/image/{number}.png"}
            made[-1] |= {"split": "testmini", "knowledge concept": "Areas", "question number": len(made)}
    return made


@pytest.mark.parametrize(
    "response", ["<Thought process>: <<x>> <Answer>: <<B>>", "Answer: B. 2", r"so \boxed{B}", "B. 2"]
)
def test_right(response):
    assert grade(GOLD, response).correct


@pytest.mark.parametrize("response", ["<Answer>: <<A>>", "Answer: unknown", r"\boxed{C}", "i do not know"])
def test_wrong(response):
    assert not grade(GOLD, response).correct


def items_of(tmp_path, *parts):
    made = [row for part in parts for row in part]
    for row in made:
        picture_file(tmp_path / row["image_path"])
    write_json(tmp_path / "testmini.json", made)
    return read(tmp_path)


def test_reading(tmp_path):
    items = items_of(tmp_path, rows(1, 2), rows(1, 3))
    assert [item.id for item in items][:3] == ["2steps_1/2steps_1", "2steps_1/2steps_2", "2steps_1/2steps_multi"]
    assert [item.groups["steps"] for item in items] == ["1 step"] * 2 + ["2 steps"] + ["1 step"] * 3 + ["3 steps"]
    assert "Question: q?\nOption: A. 1; B. 2; E. No correct answer\n" in items[0].prompt
    with pytest.raises(DataError, match="the answer '2' is not a letter"):
        items_of(tmp_path, [{**rows()[0], "answer": "2"}])


def test_four_dimensional_metrics(tmp_path):
    items = items_of(tmp_path, rows(6, 2))
    # Right sub-problems and whole: twice mastered, generalization missing, knowledge missing, rote, half rote.
    problems = ((1, 1, 1), (1, 1, 1), (1, 1, 0), (1, 0, 0), (0, 0, 1), (1, 0, 1))
    scores = [score for problem in problems for score in problem]
    metrics = summary(items, scores)
    assert metrics["composite_problems"] == 6
    assert metrics["insufficient_knowledge"] == pytest.approx(1 / 6)
    assert metrics["inadequate_generalization"] == pytest.approx(1 / 6)
    assert metrics["complete_mastery_strict"] == pytest.approx(2 / 6)
    assert metrics["complete_mastery_loose"] == pytest.approx(3 / 6)
    assert metrics["rote_memorization_strict"] == pytest.approx(2 / 4)
    assert metrics["rote_memorization_loose"] == pytest.approx(1 / 4)
    # (6 - 0.5 x generalization - rote - knowledge) / 6.
    assert metrics["score_strict"] == pytest.approx((6 - 0.5 - 2 - 1) / 6)
    assert metrics["score_loose"] == pytest.approx((6 - 0.5 - 1 - 1) / 6)
    assert summary(items[:2], [1, 1]) == {}
