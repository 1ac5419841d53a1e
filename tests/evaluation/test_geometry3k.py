"""Geometry3K test: the original folders and the hub's parquet."""

import pytest
from published_forms import hub_image, picture_file, write_json, write_parquet

from infimmr_jax.data.records import DataError
from infimmr_jax.evaluation.geometry3k import grade, read

CHOICES = ["4", "5 \\sqrt { 2 }", "6", "7"]


def record(answer="B"):
    return {"problem_text": "Find x.", "annotat_text": "Find $x$.", "choices": CHOICES, "answer": answer} | {
        "problem_type_goal": ["Length"]
    }


def test_original_folders(tmp_path):
    for name in ("2401", "2402", "10000"):
        write_json(tmp_path / "test" / name / "data.json", record())
        picture_file(tmp_path / "test" / name / "img_diagram.png")
    items = read(tmp_path)
    assert [item.id for item in items] == ["2401", "2402", "10000"]
    assert items[0].choices == tuple(CHOICES)
    assert items[0].groups == {"goal": ("Length",)}
    assert grade(items[0].gold, r"\boxed{B}").correct
    assert grade(items[0].gold, r"\boxed{5\sqrt{2}}").correct
    assert not grade(items[0].gold, r"\boxed{A}").correct
    assert grade(items[0].gold, "nothing").extracted is None


def test_bad_records_are_named(tmp_path):
    file = write_json(tmp_path / "test" / "1" / "data.json", record("E"))
    picture_file(tmp_path / "test" / "1" / "img_diagram.png")
    with pytest.raises(DataError, match=r"1/data\.json: the answer 'E' is not a letter of 4 choices"):
        read(tmp_path)
    file.write_text("{}")
    with pytest.raises(DataError, match=r"data\.json is no Geometry3K record"):
        read(tmp_path)


def test_hub_form(tmp_path):
    rows = [{"images": [hub_image()], "problem": "<image>Find $x$.", "answer": r"5 \sqrt { 2 }"}]
    write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", rows)
    (item,) = read(tmp_path)
    assert item.question == "<image>Find $x$."
    assert len(item.images) == 1
    assert grade(item.gold, r"<b> \boxed{5\sqrt{2}}").correct
    assert not grade(item.gold, r"\boxed{5}").correct
