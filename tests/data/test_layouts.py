"""Readers of published layouts, on files made here with the published field names and nesting."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from infimmr_jax.config import DataSection, ImageSection, SourceSection
from infimmr_jax.data.layouts import LAYOUTS, from_fields, from_math
from infimmr_jax.data.question_options import split_options
from infimmr_jax.data.readers import read_source
from infimmr_jax.data.records import DataError
from infimmr_jax.data.rows import problem_from_row
from infimmr_jax.rewards.golds import GoldCheck

FIELDS = [
    *("id", "question", "problem", "query", "answer", "ground_truth", "solution", "images", "image", "choices"),
    *(
        "options",
        "conversations",
        "messages",
        "message",
        "role",
        "from",
        "content",
        "value",
        "type",
        "text",
        "bytes",
        "path",
    ),
    *("level", "difficulty", "subject", "category", "source", "qid", "PassRate_7BBase", "annotat_text", "_forms"),
    *("diagram_logic_form", "caption", "answer_type", "unique_id", "problem_text"),
]


def read(folder, reader, path, modality="text", **options):
    section = SourceSection(reader=reader, path=path, **options)
    return read_source(section, modality, DataSection(root=folder), GoldCheck())


def lines(path, *records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def png(value=0, size=(30, 20)):
    buffer = io.BytesIO()
    Image.fromarray(np.full((size[1], size[0], 3), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_gsm8k_takes_the_number_after_the_mark_and_the_solution_before_it(tmp_path):
    answer = "She has 48/2 = <<48/2=24>>24 clips.\nTogether 1000+24 = <<1000+24=1024>>1,024.\n#### 1,024"
    lines(tmp_path / "train.jsonl", {"question": "How many?", "answer": answer}, {"question": "x", "answer": "no mark"})
    (problem,), rejected = read(tmp_path, "gsm8k", "train.jsonl")
    assert (problem.id, problem.answer, problem.answer_type) == ("train-1", "1024", "math")
    assert problem.solution == "She has 48/2 = 24 clips.\nTogether 1000+24 = 1,024."
    assert "####" in rejected[0].reason


def test_math_folder_reads_the_last_box_and_the_level(tmp_path):
    record = {"problem": "Find $x$.", "level": "Level 4", "type": "Algebra"}
    solution = "First \\boxed{1}, then $x=\\boxed{\\frac{3}{4}}$."
    for name, more in (
        ("10", {"solution": solution}),
        ("9", {"solution": "no box"}),
        ("11", {"solution": "\\boxed{2}"}),
    ):
        path = tmp_path / "train" / "algebra" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record | more | ({"level": "Level ?"} if name == "11" else {})))
    problems, rejected = read(tmp_path, "math_folder", "train")
    assert [(p.id, p.answer, p.level) for p in problems] == [
        ("algebra/10.json", "\\frac{3}{4}", 4.0),
        ("algebra/11.json", "2", None),
    ]
    assert problems[0].subject == "Algebra"
    assert rejected[0].row == 1
    assert "boxed" in rejected[0].reason


def test_math500_and_deepscaler_records(tmp_path):
    row = {"problem": "p", "solution": "s", "answer": "\\sqrt{2}", "subject": "Geometry", "level": 5}
    lines(tmp_path / "test.jsonl", row | {"unique_id": "test/geometry/1.json"})
    (problem,), _ = read(tmp_path, "math", "test.jsonl")
    assert (problem.id, problem.subject, problem.level) == ("test/geometry/1.json", "Geometry", 5.0)
    records = [{"problem": f"p{n}", "answer": str(n), "difficulty": 2.5, "type": "Algebra"} for n in range(3)]
    (tmp_path / "aime.json").write_text(json.dumps(records))
    problems, _ = read(tmp_path, "math", "aime.json")
    assert [(p.id, p.answer, p.level, p.subject) for p in problems][1] == ("aime-2", "1", 2.5, "Algebra")


def test_virl39k_paths_boxes_options_and_pass_rates(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "Processed-1-0.jpg").write_bytes(png())
    question = "<image>What is shown?\nChoices:\n(A) a cat\n(B) a dog"
    rows = [
        {"question": question, "answer": "\\boxed{B}", "qid": "q1", "PassRate_7BBase": 0.25},
        {"question": "<image>Find x.", "answer": "\\boxed{\\frac{1}{2}}", "qid": "q2", "PassRate_7BBase": -1.0},
        {"question": "<image>Which one?", "answer": "\\boxed{C}", "qid": "q3", "PassRate_7BBase": 0.5},
    ]
    common = {"category": "(GradeSchool) Geometric", "source": "Processed", "PassRate_32BTrained": 1.0}
    table = [row | common | {"image": ["images/Processed-1-0.jpg"]} for row in rows]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), tmp_path / "39Krelease.parquet")
    problems, rejected = read(tmp_path, "virl39k", "39Krelease.parquet", "image")
    assert rejected == []
    first, second, third = problems
    assert (first.id, first.answer, first.answer_type) == ("q1", "B", "choice")
    assert (first.question, first.choices) == ("<image>What is shown?", ("a cat", "a dog"))
    assert first.level == 0.75
    assert (second.answer, second.answer_type, second.level) == ("\\frac{1}{2}", "math", None)
    assert (third.answer, third.answer_type) == ("C", "string")
    assert first.images == (str((tmp_path / "images" / "Processed-1-0.jpg").resolve()),)
    assert first.extra["PassRate_32BTrained"] == 1.0


def test_virl39k_with_the_pictures_inside_the_parquet(tmp_path):
    row = {"question": "<image>Find x.", "answer": "\\boxed{4}", "qid": "q1", "category": "Geometric", "source": "P"}
    row |= {"PassRate_32BTrained": 0.5, "PassRate_7BBase": 0.25, "image": [{"bytes": png(3), "path": "a.png"}]}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "train.parquet")
    (problem,), rejected = read(tmp_path, "virl39k", "train.parquet", "image")
    assert rejected == []
    assert (problem.id, problem.answer, problem.images, problem.level) == ("q1", "4", (png(3),), 0.75)


def test_deepscaler_is_a_json_list_of_problems_answers_and_solutions(tmp_path):
    rows = [{"problem": f"p{n}", "answer": "\\frac{1}{2}", "solution": "so \\boxed{7}"} for n in range(2)]
    (tmp_path / "deepscaler.json").write_text(json.dumps(rows))
    problems, rejected = read(tmp_path, "deepscaler", "deepscaler.json")
    assert rejected == []
    assert [(p.id, p.answer, p.solution, p.source) for p in problems] == [
        (f"deepscaler-{n}", "\\frac{1}{2}", "so \\boxed{7}", "DeepScaleR") for n in (1, 2)
    ]


def test_gsm8k_and_math_are_read_from_parquet_too(tmp_path):
    row = {"question": "How many?", "answer": "one\n#### 1"}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "train-00000-of-00001.parquet")
    assert read(tmp_path, "gsm8k", "train-00000-of-00001.parquet")[0][0].answer == "1"
    row = {"problem": "p", "solution": "\\boxed{2}", "level": "Level 3", "type": "Algebra"}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "math.parquet")
    (problem,) = read(tmp_path, "math", "math.parquet")[0]
    assert (problem.answer, problem.level, problem.subject) == ("2", 3.0, "Algebra")


@pytest.mark.parametrize("more", [{}, {"id": 7, "choices": ["3", "4\\sqrt{2}", "5", "6"], "ground_truth": "B"}])
def test_geometry3k_parquet_in_both_forms_of_its_card(tmp_path, more):
    row = {"images": [{"bytes": png(1), "path": None}], "problem": "<image>Find $x$.", "answer": "4\\sqrt{2}"} | more
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "train.parquet")
    (problem,), rejected = read(tmp_path, "geometry3k", "train.parquet", "image")
    assert rejected == []
    assert (problem.answer, problem.answer_type, problem.choices) == ("4\\sqrt{2}", "math", ())
    assert (problem.id, problem.images) == ("geometry3k_7" if more else "train-1", (png(1),))
    assert problem.extra.get("orig_choices") == more.get("choices")


@pytest.mark.parametrize("key", ["conversations", "message"])
@pytest.mark.parametrize("mark", ["<image>", ""])
def test_mm_style_lines_hold_their_turns_as_json_text(tmp_path, key, mark):
    (tmp_path / "a.png").write_bytes(png())
    parts = [{"type": "image", "image": f"file://{tmp_path}/a.png"}, {"type": "text", "text": f"{mark}How many cats?"}]
    lines(tmp_path / "mm.jsonl", {"id": "0", key: json.dumps([{"role": "user", "content": parts}]), "answer": "$3$"})
    (problem,), rejected = read(tmp_path, "fields", "mm.jsonl", "image")
    assert rejected == []
    assert (problem.question, problem.answer, problem.answer_type) == ("<image>How many cats?", "$3$", "math")
    assert problem.images == (str((tmp_path / "a.png").resolve()),)
    assert key not in problem.extra


def geometry_folder(folder, number, **changes):
    place = folder / "train" / str(number)
    place.mkdir(parents=True)
    data = {"annotat_text": "Find $x$.", "problem_text": "Find x.", "choices": ["3", "4\\sqrt{2}", "5", "6"]}
    data |= {"answer": "B", "problem_type_graph": ["Triangle"], "problem_type_goal": ["Length"]} | changes
    (place / "data.json").write_text(json.dumps(data))
    forms = ["Equals(LengthOf(Line(A, B)), 13)", "Equals(MeasureOf(Angle(B, T, M)), 28)", ""]
    forms += ["PointLiesOnCircle(A, Circle(M, radius_5_0))", "Perpendicular(Line(B, T), Line(B, M))"]
    (place / "logic_form.json").write_text(json.dumps({"diagram_logic_form": forms, "text_logic_form": []}))
    (place / "img_diagram.png").write_bytes(png())


def test_geometry3k_folders_give_the_options_text_the_diagram_and_a_caption(tmp_path):
    for number in (10, 9):
        geometry_folder(tmp_path, number)
    geometry_folder(tmp_path, 11, answer="E")
    problems, rejected = read(tmp_path, "geometry3k_folder", "train", "caption")
    assert [p.id for p in problems] == ["geometry3k_9", "geometry3k_10"], rejected
    first = problems[0]
    assert (first.answer, first.answer_type, first.subject) == ("4\\sqrt{2}", "math", "Triangle")
    assert first.images[0].endswith("train/9/img_diagram.png")
    assert first.caption == (
        "AB = 13. ∠BTM = 28°. Point A lies on the circle with center M. BT is perpendicular to BM."
    )
    assert first.extra["orig_choice_letter"] == "B"
    assert "not a letter" in rejected[0].reason


def test_huggingface_parquet_with_embedded_images(tmp_path):
    table = [
        {"images": [{"bytes": png(n), "path": None}], "problem": "<image>Find x.", "answer": str(n)} for n in range(70)
    ]
    table[3]["images"][0]["bytes"] = png()[:40]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), tmp_path / "train.parquet")
    problems, rejected = read(tmp_path, "fields", "train.parquet", "image")
    assert len(problems) == 69
    assert (problems[69 - 1].id, problems[0].images[0]) == ("train-70", png(0))
    assert [r.row for r in rejected] == [4]
    assert "40 encoded bytes" in rejected[0].reason


def test_image_paths_may_be_relative_to_another_folder(tmp_path):
    lines(tmp_path / "data" / "test.jsonl", {"id": "1", "question": "?", "answer": "5", "image": "images/1.jpg"})
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.jpg").write_bytes(png())
    assert read(tmp_path, "fields", "data/test.jsonl", "image")[0] == []
    (problem,), _ = read(tmp_path, "fields", "data/test.jsonl", "image", images=".")
    assert problem.images == (str((tmp_path / "images" / "1.jpg").resolve()),)


@pytest.mark.parametrize(
    "record",
    [
        {"question": "Which?", "choices": ["x", "y"], "answer": "y"},
        {"problem": "Which?", "options": ["x", "y"], "answer": "(B)"},
        {"query": "Which?\nA. x\nB. y", "answer": "B"},
        {"problem": "Which? (A) x (B) y", "solution": "So <answer> B </answer>"},
        {"conversations": [{"from": "human", "value": "Which?\nA: x\nB: y"}, {"from": "gpt", "value": "\\boxed{B}"}]},
        {"messages": json.dumps([{"role": "user", "content": "Which? A) x B) y"}]), "ground_truth": "B"},
    ],
)
def test_customary_fields_give_one_row(record):
    row = from_fields({"id": 7, **record}, "set-1")
    assert (row["id"], row["question"], row["choices"], row["answer"]) == ("7", "Which?", ["x", "y"], "B")
    assert row["answer_type"] == "choice"


def test_typed_answers_keep_their_structure_in_json_lines_and_parquet(tmp_path):
    asked = {"question": "Where?", "image": {"bytes": png()}}
    rows = [
        asked | {"id": "a", "answer_type": "box", "answer": [[1.0, 2.0, 20.0, 15.0]], "verify": {"threshold": 0.6}},
        asked | {"id": "b", "answer_type": "box", "answer": [[3.0, 4.0, 5.0, 6.0]], "verify": {"rule": "full_iou"}},
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "train.parquet")
    problems, rejected = read(tmp_path, "fields", "train.parquet", "image")
    assert rejected == []
    answers = ["[[1.0, 2.0, 20.0, 15.0]]", "[[3.0, 4.0, 5.0, 6.0]]"]
    assert [(p.answer, p.answer_type) for p in problems] == [(answer, "box") for answer in answers]
    assert problems[0].extra["image_size"] == [30, 20]
    for kind, answer, wanted in (
        ("list", ["red"], "[red]"),
        ("number", 2.5, "2.5"),
        ("action", {"action": "click", "bbox": [1, 2, 3, 4]}, '{"action": "click", "bbox": [1, 2, 3, 4]}'),
    ):
        row = from_fields({"question": "?", "answer": answer, "answer_type": kind}, "set-1")
        assert (row["answer"], row["answer_type"]) == (wanted, kind)


def test_message_parts_carry_images_in_place():
    content = [
        {"type": "text", "text": "Look "},
        {"type": "image", "image": "file://a.png"},
        {"type": "text", "text": "."},
    ]
    row = from_fields({"messages": [{"role": "user", "content": content}], "answer": "12"}, "set-1")
    assert (row["question"], row["images"], row["answer_type"]) == ("Look <image>.", ["a.png"], "math")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [("yes", "string"), ("New York", "string"), ("x", "math"), ("3 cm", "math"), ("\\pi", "math"), ("x+y", "math")],
)
def test_the_type_of_an_untyped_answer(answer, kind):
    assert from_fields({"question": "?", "answer": answer}, "s-1")["answer_type"] == kind


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"answer": "1"}, "no question"),
        ({"question": "?"}, "no answer"),
        ({"question": "?", "answer": "z", "choices": ["x", "y"]}, "neither a letter"),
        ({"question": "?", "answer": "1", "images": [3]}, "neither a path"),
        ({"messages": "not json", "answer": "1"}, "not valid JSON"),
    ],
)
def test_a_record_that_is_no_problem_says_why(record, reason):
    with pytest.raises(DataError, match=reason):
        from_fields(record, "s-1")


def test_math_needs_an_answer_or_a_box():
    with pytest.raises(DataError, match="boxed"):
        from_math({"problem": "p", "solution": "none"}, "m-1")


@pytest.mark.parametrize(
    ("question", "stem", "options"),
    [
        ("Q?\n(A) 1\n(B) 2\n(C) 3", "Q?", ("1", "2", "3")),
        ("Q? Options: A. one; B. two", "Q?", ("one", "two")),
        ("Q?\nChoices:\nA:3\nB:4", "Q?", ("3", "4")),
        ("In triangle (A) B, find x.", "In triangle (A) B, find x.", ()),
        ("Q? (A) 1 (C) 2", "Q? (A) 1 (C) 2", ()),
        ("Take plan A. It costs 3. B. says no", "Take plan", ("It costs 3.", "says no")),
        ("No options here.", "No options here.", ()),
        ("(A) first set\nreal:\n(A) 5\n(B) 6", "(A) first set\nreal:", ("5", "6")),
    ],
)
def test_options_inside_a_question(question, stem, options):
    assert split_options(question) == (stem, options)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("reader", sorted(LAYOUTS))
@given(record=st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=8))
@settings(max_examples=150, deadline=None)
def test_no_record_whatever_it_holds_raises_anything_but_a_sentence(reader, record):
    record |= {"_file": "train/1/data.json"}
    with contextlib.suppress(DataError):
        row = LAYOUTS[reader].convert(record, "set-1")
        for modality in ("text", "caption", "image"):
            with contextlib.suppress(DataError):
                problem_from_row(row, Path("."), modality, 2, ImageSection())


def test_a_file_of_the_wrong_kind_is_an_error(tmp_path):
    (tmp_path / "a.csv").write_text("x")
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match=r"none of \.jsonl, \.json, \.parquet"):
        read(tmp_path, "fields", "a.csv")
    with pytest.raises(DataError, match="not valid JSON"):
        read(tmp_path, "fields", "a.json")
    with pytest.raises(DataError, match="parquet"):
        read(tmp_path, "fields", "a.parquet")
    with pytest.raises(DataError, match="reads a folder"):
        read(tmp_path, "math_folder", "a.json")
