"""MathVerse: published forms and the rules in place of GPT."""

import pytest
from published_forms import hub_image, picture_file, write_json, write_parquet

from infimmr_jax.config import ConfigError
from infimmr_jax.data.records import DataError
from infimmr_jax.evaluation.mathverse import grade, options_of, read

QUESTION = "Find the angle.\nChoices:\nA:40°\nB:60°\nC:√{3}\nD:70πcm^{2}"
CHOICE = {"answer": "D", "options": options_of(QUESTION), "choice": True}


def free(answer):
    return {"answer": answer, "options": {}, "choice": False}


@pytest.mark.parametrize(
    ("gold", "response"),
    [
        (CHOICE, r"\boxed{D}"),
        (CHOICE, "Answer: (D) 70"),
        (CHOICE, "so it is (D)"),
        (CHOICE, r"\boxed{70\pi}"),
        ({**CHOICE, "answer": "C"}, r"\boxed{\sqrt{3}}"),
        ({**CHOICE, "answer": "B"}, r"\boxed{60}"),
        ({"answer": "A", "options": {}, "choice": True}, r"\boxed{A}"),
        (free("14"), "The answer is 14 cm."),
        (free("14"), "L is about 14.32, rounded down:\n14"),
        (free(r"Area $=9 \pi \mathrm{cm}^{2}$"), r"\boxed{9\pi}"),
        (free("Surface Area $=603.186$ units $^{2}$"), r"\boxed{603.186}"),
        (free("329° T"), r"\boxed{329^\circ}"),
        (free("y=-2x+5"), r"\boxed{-2x+5}"),
        (free(r"$\frac{4}{5}$"), r"\boxed{0.8}"),
        (free("domain: [-4, 0) and range: (-3, 1]"), r"\boxed{\text{domain: } [-4,0) \text{ and range: } (-3,1]}"),
    ],
)
def test_right(gold, response):
    assert grade(gold, response).correct


@pytest.mark.parametrize(
    ("gold", "response"),
    [
        (CHOICE, r"\boxed{C}"),
        (CHOICE, r"\boxed{70}"),
        (CHOICE, "I can not tell"),
        (free("14"), r"\boxed{15}"),
        (free("(-2,1]"), r"\boxed{(-2,1)}"),
        (free("3 m"), r"\boxed{3 cm}"),
        (free("2x"), r"\boxed{2y}"),
        (free("Area $=9$"), "Area is unknown"),
    ],
)
def test_wrong(gold, response):
    assert not grade(gold, response).correct


@pytest.mark.parametrize("answer", ["C", "(C)", "A\nC", "A, C", "False", "B.", "(A)\n(D)"])
@pytest.mark.parametrize("options", [{}, CHOICE["options"], {"A": "True", "B": "False", "C": "x", "D": "y"}])
def test_every_gold_of_a_choice_can_be_reached(answer, options):
    gold = {"answer": answer, "options": options, "choice": True}
    assert grade(gold, rf"\boxed{{{answer}}}").correct
    assert not grade(gold, r"\boxed{(A)(B)(C)(D)}").correct
    assert not grade(gold, r"\boxed{E}").correct


def test_a_gold_that_is_an_options_text_is_that_option():
    gold = {"answer": "False", "options": {"A": "True", "B": "False"}, "choice": True}
    assert grade(gold, r"\boxed{B}").correct
    assert not grade(gold, r"\boxed{A}").correct


ROWS = [
    {"sample_index": "1", "problem_index": "1", "problem_version": "Text Dominant", "question": QUESTION}
    | {"image": "images_version_1-4/image_1.png", "answer": "D", "question_type": "multi-choice"}
    | {"metadata": {"split": "testmini", "source": "x", "subject": "Plane Geometry", "subfield": "Angle"}}
    | {"query_wo": "Please directly ..", "query_cot": "Please first .."},
    {"sample_index": "5", "problem_index": "1", "problem_version": "Vision Only", "question": ""}
    | {"image": "images_version_6/image_1.png", "answer": "14", "question_type": "free-form"}
    | {"metadata": {"split": "testmini", "source": "x", "subject": "Solid Geometry", "subfield": "Length"}}
    | {"query_wo": "According to ..", "query_cot": "According to the question shown in the image, .."},
]


def test_both_forms(tmp_path):
    write_json(tmp_path / "json" / "testmini.json", ROWS)
    picture_file(tmp_path / "json" / "images_version_1-4" / "image_1.png")
    picture_file(tmp_path / "json" / "images" / "images_version_6" / "image_1.png")
    write_parquet(tmp_path / "hub" / "testmini.parquet", [{**row, "image": hub_image()} for row in ROWS])
    for name in ("json", "hub"):
        items = read(tmp_path / name)
        assert [item.id for item in items] == ["1", "5"]
        # The leaderboard's w/o score asks for the answer directly.
        assert items[0].problem("published").question == "Please directly .."
        assert items[0].problem("published-cot").question == "Please first .."
        assert items[0].problem("plain").question == QUESTION
        assert items[0].gold == CHOICE
        assert items[1].question == "Solve the problem that is shown in the image."
        assert items[1].groups["version"] == "Vision Only"
        assert items[1].groups["subject"] == "Solid Geometry"


def test_prompts_that_are_missing_are_named(tmp_path):
    without = [{key: value for key, value in row.items() if key != "query_wo"} for row in ROWS]
    with pytest.raises(DataError, match=r"testmini\.json, row 1: there is no key 'query_wo'"):
        read(write_json(tmp_path / "testmini.json", without))
    picture_file(tmp_path / "images_version_1-4" / "image_1.png")
    (item,) = read(write_json(tmp_path / "testmini.json", [{**ROWS[0], "query_cot": None}]))
    with pytest.raises(ConfigError, match="--style published-cot: problem '1' has no second published prompt"):
        item.problem("published-cot")


def test_text_only_file(tmp_path):
    row = {**ROWS[0], "image": "", "problem_version": "Text Only"}
    (item,) = read(write_json(tmp_path / "testmini_text_only.json", [row]))
    assert item.images == ()
    (item,) = read(tmp_path)
    assert item.groups["version"] == "Text Only"


def test_options():
    assert options_of(QUESTION) == {"A": "40°", "B": "60°", "C": "√{3}", "D": "70πcm^{2}"}
    assert options_of("no options: A:1") == {}
