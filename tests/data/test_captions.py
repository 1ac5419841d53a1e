"""Caption files survive a kill and are put on problems; a caption that gives the answer away is flagged."""

import json

import pytest
from PIL import Image

from infimmr_jax.config import DataSection, SourceSection
from infimmr_jax.data.captions import leaks_answer, read_captions
from infimmr_jax.data.readers import read_source
from infimmr_jax.data.records import DataError, Problem


def test_a_caption_file_keeps_the_last_line_of_an_id_and_forgives_a_cut_end(tmp_path):
    path = tmp_path / "captions.jsonl"
    path.write_text(
        '{"id": "a", "caption": "old"}\n{"id": 5, "caption": "five"}\n{"id": "a", "caption": "new"}\n{"id": "b", "cap'
    )
    assert read_captions(path) == {"a": "new", "5": "five"}


@pytest.mark.parametrize(
    "text", ['{"id": "a"}\n', '{"id": "a", "caption": 3}\n', '{"id\n{"id": "a", "caption": "x"}\n', "x\n"]
)
def test_a_caption_file_with_another_fault_is_an_error_with_its_row(tmp_path, text):
    path = tmp_path / "captions.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=r"captions\.jsonl, row 1"):
        read_captions(path)


def test_captions_from_a_file_stand_in_for_missing_ones(tmp_path):
    Image.new("RGB", (30, 30)).save(tmp_path / "p.png")
    row = {"question": "?", "answer": "1", "answer_type": "math", "images": ["p.png"]}
    rows = [row | {"id": "a"}, row | {"id": "b", "caption": "own"}, row | {"id": "c"}]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (tmp_path / "c.jsonl").write_text('{"id": "a", "caption": "filed"}\n{"id": "b", "caption": "filed too"}\n')
    source = SourceSection(reader="jsonl", path="t.jsonl", captions="c.jsonl")
    problems, rejected = read_source(source, "caption", DataSection(root=tmp_path))
    assert [(p.id, p.caption) for p in problems] == [("a", "filed"), ("b", "filed too")]
    assert [r.id for r in rejected] == ["c"]


@pytest.mark.parametrize(
    ("caption", "answer", "leaks"),
    [
        ("The side is 6.", "6", True),
        ("The side is 60.", "6", False),
        ("The side is 6.5 cm.", "6", False),
        ("The side is 1.6 cm.", "6", False),
        ("x = $3\\sqrt{2}$ here", "$3\\sqrt{2}$", True),
        ("The shape is RED.", "red", True),
        ("A reddish shape.", "red", False),
        ("It is true.", "true", False),
        (None, "6", False),
    ],
)
def test_the_answer_is_looked_for_as_a_whole(caption, answer, leaks):
    problem = Problem(id="a", question="?", answer=answer, answer_type="string", caption=caption)
    assert leaks_answer(problem) is leaks


def test_of_a_choice_the_right_options_text_is_looked_for():
    options = {"id": "a", "question": "?", "answer_type": "choice", "choices": ("small", "large")}
    assert leaks_answer(Problem(**options, answer="B", caption="one large circle, no A or B"))
    assert not leaks_answer(Problem(**options, answer="A", caption="one large circle, no A or B"))
