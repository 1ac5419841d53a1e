"""OlympiadBench: published forms, prompts and answer extraction."""

import pytest
from published_forms import hub_image, picture_file, write_json, write_parquet

from infimmr_jax.data.records import DataError
from infimmr_jax.evaluation.olympiadbench import DEFAULT_PRECISION, grade, instruction, read

ROW = {
    "id": 7,
    "subfield": "Geometry",
    "context": None,
    "question": "See <img_1>. Find x.",
    "final_answer": ["$3$"],
    "is_multiple_answer": False,
    "unit": None,
    "answer_type": "Numerical",
    "error": None,
}


def test_repository_form(tmp_path):
    write_json(tmp_path / "data" / "OE_MM_maths_en_COMP.json", [ROW, {**ROW, "id": 8, "question": "No picture"}])
    context = {**ROW, "context": "A ball falls.", "unit": "m", "error": "1e-1", "question": "How far?"}
    write_json(tmp_path / "data" / "OE_TO_physics_en_COMP.json", [context])
    write_json(tmp_path / "data" / "TP_TO_maths_en_COMP.json", [ROW])
    picture_file(tmp_path / "images" / "img_1.jpg")
    items = read(tmp_path)
    assert [item.id for item in items] == ["OE_MM_maths_en_COMP/7", "OE_MM_maths_en_COMP/8", "OE_TO_physics_en_COMP/7"]
    assert items[0].question == "See <image>. Find x."
    assert len(items[0].images) == 1
    assert items[0].prompt.endswith(
        '"So the final answer is \\boxed{answer}." and give the result explicitly.\nSee <image>. Find x.'
    )
    assert items[1].images == ()
    assert items[0].groups["subset"] == "OE_MM_maths_en_COMP"
    assert items[2].prompt.endswith("\nA ball falls.\nHow far?")
    assert "note that the unit" in items[2].prompt
    assert items[2].gold == {"answer": "$3$", "precision": 0.1, "chinese": False}
    with pytest.raises(DataError, match="theorem proving"):
        read(tmp_path / "data" / "TP_TO_maths_en_COMP.json")


def test_hub_form(tmp_path):
    row = {key: value for key, value in ROW.items() if key != "context"}
    row |= {
        "question": "从 <image_1> 到 <image_2>",
        "image_1": hub_image(),
        "image_2": hub_image("blue"),
        "image_3": None,
    }
    row |= {"subject": "Math", "language": "Chinese", "modality": "Multimodal", "difficulty": "Competition"}
    row |= {"question_type": "Open-ended"}
    folder = write_parquet(tmp_path / "hub" / "OE_MM_maths_zh_COMP" / "train-0.parquet", [row]).parent
    for path in (folder, tmp_path / "hub", write_parquet(tmp_path / "train.parquet", [row])):
        (item,) = read(path)
        assert item.groups["subset"] == "OE_MM_maths_zh_COMP"
        assert item.question == "从 <image> 到 <image>"
        assert len(item.images) == 2
        assert item.prompt.startswith("以下是中国数学竞赛中的解答题，答案类型为数值。")
        assert item.gold["chinese"]


def test_instructions_by_answer_type_number_and_unit():
    subset = "OE_TO_maths_en_COMP"
    several = {**ROW, "is_multiple_answer": True}
    assert "The answer of The problem should be a numerical value. " in instruction(ROW, subset)
    assert "answer of The problem" not in instruction({**ROW, "answer_type": "Tuple"}, subset)
    assert "each of them should be an expression. " in instruction({**several, "answer_type": "Expression"}, subset)
    mixed = instruction({**several, "answer_type": "Numerical,Interval"}, subset)
    assert "with the answers in order being a numerical value, an interval. " in mixed
    assert "\\boxed{multiple answers connected with commas}" in mixed
    assert "\\boxed{answer}(unit)" in instruction({**ROW, "unit": "m"}, subset)
    with pytest.raises(DataError, match="no answer type 'Poem'"):
        instruction({**ROW, "answer_type": "Poem"}, subset)


def test_tolerances_of_rows(tmp_path):
    def read_one(**changes):
        return read(write_json(tmp_path / "OE_TO_maths_en_COMP.json", [{**ROW, "question": "q", **changes}]))[0].gold

    assert read_one()["precision"] == DEFAULT_PRECISION
    assert read_one(error="1e-1,,1e-3")["precision"] == [0.1, DEFAULT_PRECISION, 0.001]
    assert read_one(error="1e-1", answer_type="Tuple")["precision"] == DEFAULT_PRECISION
    with pytest.raises(DataError, match="id 7: the tolerance 'small' is not a number"):
        read_one(error="small")
    with pytest.raises(DataError, match="id 7: there is no final answer"):
        read_one(final_answer=[])


def test_missing_picture_and_unknown_subset_are_named(tmp_path):
    (item,) = read(write_json(tmp_path / "OE_MM_maths_en_COMP.json", [ROW]))
    assert item.asked("published")  # stored responses can be scored without it
    with pytest.raises(DataError, match=r"id 7: there is no image img_1\.jpg"):
        item.problem("published")
    with pytest.raises(DataError, match="neither path nor columns tell the subset"):
        read(write_json(tmp_path / "rows.json", [{**ROW, "question": "q"}]))


def test_grade():
    gold = {"answer": "$3$", "precision": DEFAULT_PRECISION, "chinese": False}
    assert grade(gold, "Long work with \\boxed{4}. So the final answer is \\boxed{3}.").correct
    assert grade(gold, "only \\boxed{3}").correct
    assert not grade(gold, "So the final answer is \\boxed{3}. So the final answer is \\boxed{2}.").correct
    assert grade({**gold, "chinese": True}, "所以最终答案是$\\boxed{3}$。").correct
    assert not grade({**gold, "answer": "46", "precision": 2.0}, "So the final answer is \\boxed{0}.").correct
    assert grade({**gold, "answer": "1,2", "precision": [0.3, 0.1]}, "\\boxed{2.3, 1.1}").correct
    assert not grade({**gold, "answer": "1,2", "precision": [0.1, 0.3]}, "\\boxed{2.3, 1.1}").correct
    assert grade(gold, "no idea").extracted is None
    assert grade(gold, "").reason == "empty"
