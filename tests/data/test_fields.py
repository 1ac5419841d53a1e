"""Rows as other trainers and benchmarks publish them: read as they are meant, or refused with what they have."""

import io
import json

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from infimmr_jax.config import DataSection, SourceSection
from infimmr_jax.data.readers import read_rows
from infimmr_jax.rewards.golds import GoldCheck

BOXED = "<think>The base is \\boxed{12}, so half of it</think>\n\n<answer>6</answer>"
ASKED = {"from": "human", "value": "<image>\nHow many?"}


def png(value=0, size=(60, 40)):
    buffer = io.BytesIO()
    Image.new("RGB", size, (value, value, value)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def read(tmp_path):
    for n in range(4):
        (tmp_path / f"{n}.png").write_bytes(png(n))

    def write(*rows, modality="image", reader="fields", parquet=False):
        if parquet:
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), tmp_path / "a.parquet")
        else:
            (tmp_path / "a.json").write_text(json.dumps(list(rows)))
        section = SourceSection(reader=reader, path="a.parquet" if parquet else "a.json")
        return read_rows(section, modality, DataSection(root=tmp_path, max_images=6), GoldCheck())

    return write


LLAVA = {"id": "7", "image": "0.png", "conversations": [ASKED, {"from": "gpt", "value": "3"}]}
PUBLISHED = {
    "LLaVA": LLAVA,
    "Qwen-VL fine-tuning": LLAVA | {"image": ["0.png"]},
    "Qwen-VL, pictures in the text": {
        "id": "7",
        "conversations": [
            {"from": "user", "value": "<img>0.png</img>\nHow many?"},
            {"from": "assistant", "value": "3"},
        ],
    },
    "ShareGPT of LLaMA-Factory": {
        "id": "7",
        "images": ["0.png"],
        "conversations": [ASKED, {"from": "gpt", "value": "3"}],
        "tools": "",
    },
    "messages of LLaMA-Factory and ms-swift": {
        "id": "7",
        "images": ["0.png"],
        "messages": [{"role": "user", "content": "<image>\nHow many?"}, {"role": "assistant", "content": "3"}],
    },
    "ms-swift's reinforcement learning": {
        "id": "7",
        "images": [{"bytes": None, "path": "0.png"}],
        "messages": [{"role": "user", "content": "<image>\nHow many?"}],
        "solution": "<answer> 3 </answer>",
    },
    "ms-swift's query and response": {"id": "7", "query": "<image>\nHow many?", "response": "3", "images": ["0.png"]},
    "alpaca": {"id": "7", "instruction": "<image>", "input": "How many?", "output": "3", "images": ["0.png"]},
    "verl": {
        "id": "7",
        "data_source": "made",
        "prompt": [{"role": "user", "content": "<image>\nHow many?"}],
        "images": [{"image": "file://0.png"}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "3"},
        "extra_info": {"split": "train", "index": 0, "answer": "three"},
    },
    "EasyR1": {"id": "7", "problem": "<image>\nHow many?", "answer": "3", "images": ["0.png"]},
    "TRL": {
        "id": "7",
        "prompt": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "\nHow many?"}]}],
        "image": "0.png",
        "solution": BOXED.replace("6", "3"),
    },
    "TRL, prompt and completion": {
        "id": "7",
        "prompt": [{"role": "user", "content": "<image>\nHow many?"}],
        "completion": [{"role": "assistant", "content": "3"}],
        "images": ["0.png"],
    },
    "OpenAI's parts": {
        "id": "7",
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": "file://0.png", "detail": "high"}},
                    {"type": "text", "text": "\nHow many?"},
                ],
            },
            {"role": "assistant", "content": [{"type": "text", "text": "3"}]},
        ],
    },
    "parts without a type": {
        "id": "7",
        "messages": [{"role": "user", "content": [{"image": "0.png"}, "\nHow ", {"text": "many?"}]}],
        "answer": 3,
    },
    "MMMU": {"id": "7", "question": "<image 1>\nHow many?", "options": "[]", "answer": "3", "image_1": "0.png"}
    | {f"image_{n}": None for n in range(2, 8)},
}


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_one_question_in_every_published_form_is_one_problem(read, tmp_path, name):
    reading = read(PUBLISHED[name])
    assert reading.rejected == []
    (problem,) = reading.problems
    assert (problem.id, problem.question, problem.answer, problem.answer_type) == (
        "7",
        "<image>\nHow many?",
        "3",
        "math",
    )
    assert problem.images == (str((tmp_path / "0.png").resolve()),)


def test_every_answered_question_of_a_conversation_is_a_problem_with_what_was_said_before_it(read):
    turns = [ASKED, {"from": "gpt", "value": "4"}]
    turns += [{"from": "human", "value": "What colour?"}, {"from": "gpt", "value": "<think>sky</think>grey"}]
    turns += [{"from": "human", "value": "How many birds?"}, {"from": "gpt", "value": "7"}]
    reading = read(LLAVA | {"conversations": turns}, LLAVA)
    assert [(p.id, p.answer, len(p.images), p.row) for p in reading.problems] == [
        ("7-turn1", "4", 1, 1),
        ("7-turn2", "grey", 1, 1),
        ("7-turn3", "7", 1, 1),
        ("7", "3", 1, 2),
    ]
    assert reading.problems[2].question == (
        "<image>\nHow many?\nAnswer: 4\n\nWhat colour?\nAnswer: grey\n\nHow many birds?"
    )


def test_pictures_of_later_turns_are_not_shown_with_earlier_questions(read):
    turns = [ASKED, {"from": "gpt", "value": "4"}, ASKED, {"from": "gpt", "value": "5"}]
    reading = read(LLAVA | {"image": ["0.png", "1.png"], "conversations": turns})
    assert [[path[-5:] for path in p.images] for p in reading.problems] == [["0.png"], ["0.png", "1.png"]]


def test_a_gold_of_its_own_belongs_to_the_last_question(read):
    turns = [ASKED, {"from": "gpt", "value": "4"}, {"from": "human", "value": "And birds?"}]
    (problem,) = read(LLAVA | {"conversations": turns, "answer": 0}).problems
    assert (problem.question, problem.answer) == ("<image>\nHow many?\nAnswer: 4\n\nAnd birds?", "0")


def test_one_published_id_for_several_rows_is_made_different(read):
    rows = [LLAVA | {"conversations": [ASKED, {"from": "gpt", "value": str(n)}]} for n in range(4)]
    reading = read(*rows)
    assert [p.id for p in reading.problems] == ["7", "7-row2", "7-row3", "7-row4"]
    assert list(reading.notes.values()) == [3]


@pytest.mark.parametrize(
    ("solution", "answer"),
    [(BOXED, "6"), ("<answer>\\boxed{5}</answer>", "5"), ("so \\boxed{1} or \\boxed{\\frac{1}{2}}", "\\frac{1}{2}")],
)
def test_the_tag_behind_the_thinking_is_the_answer(read, solution, answer):
    (problem,) = read({"question": "?", "solution": solution}, modality="text").problems
    assert problem.answer == answer
    assert "<" not in (problem.solution or "")


def test_numeric_answers_and_ids_may_be_zero(read):
    rows = [{"id": n, "question": f"How many {n}?", "answer": float(n) if n == 2 else n} for n in range(3)]
    assert [(p.id, p.answer) for p in read(*rows, modality="text").problems] == [("0", "0"), ("1", "1"), ("2", "2.0")]
    parquet = read(*({"id": n, "question": "?", "answer": n} for n in range(2)), modality="text", parquet=True)
    assert [p.answer for p in parquet.problems] == ["0", "1"]


def test_marks_with_numbers_put_pictures_in_their_places(read):
    row = {"id": "1", "question": "Is <image 2> like <image 1>, or <image 2>?", "answer": "A"}
    row |= {"image_1": "0.png", "image_2": "1.png", "image_3": None, "options": "['yes', 'as <image 3>']"}
    reading = read(row | {"image_3": "2.png"}, row, row | {"id": "2", "options": "['yes', 'no']"})
    first, second = reading.problems
    assert (first.question, first.choices) == ("Is <image> like <image>, or image 2?", ("yes", "as <image>"))
    assert [path[-5:] for path in first.images] == ["1.png", "0.png", "2.png"]
    assert [path[-5:] for path in second.images] == ["1.png", "0.png"]
    assert "name the images [1, 2, 3]" in reading.rejected[0].reason
    # MathVision: one picture holds all that the question names.
    (merged,) = read({"question": "Is <image1> like <image2>?", "answer": "yes", "image": "0.png"}).problems
    assert merged.question == "Is image 1 like image 2?"


def test_pictures_of_options_count(read):
    row = {"id": "v", "question": "<image>\nWhich?\nChoices:\n(A) <image>\n(B) <image>", "answer": "\\boxed{B}"}
    (problem,) = read(row | {"image": ["0.png", "1.png", "2.png"]}).problems
    assert (problem.choices, problem.answer, len(problem.images)) == (("<image>", "<image>"), "B", 3)
    common = {"id": "c", "question": "<image>?", "choices": ["<image>", "<image>"], "answer": "B"}
    common |= {"answer_type": "choice", "images": ["0.png", "1.png", "2.png"]}
    reading = read(common, common | {"id": "d", "images": ["0.png"]}, reader="jsonl")
    assert [p.id for p in reading.problems] == ["c"]
    assert "3 <image> marks for 1 images" in reading.rejected[0].reason


def test_places_of_options_are_said_and_not_trusted_where_a_row_counts_from_one(read):
    rows = [{"id": str(n), "question": "Which?", "choices": ["cat", "dog"], "answer": n} for n in range(2)]
    reading = read(*rows, modality="text")
    assert [p.answer for p in reading.problems] == ["A", "B"]
    assert reading.notes == {"the answer is the place of an option, counted from 0": 2}
    reading = read(rows[1], rows[1] | {"id": "2", "answer": 2}, modality="text")
    assert [p.id for p in reading.problems] == []
    assert ["count from 1" in r.reason or "counts options from 1" in r.reason for r in reading.rejected] == [True, True]


def test_columns_that_merely_have_our_names_are_left_aside_and_counted(read):
    row = {"question": "?", "answer": "3", "verify": True, "caption": ["a", "b"], "level": [1], "subject": {"a": 1}}
    row |= {"answer_type": "Numerical", "seen_size": "ab", "solution": 7}
    reading = read(row, row | {"level": "Level 5", "caption": ["one"]}, modality="text")
    assert [(p.level, p.caption) for p in reading.problems] == [(None, None), (5.0, "one")]
    assert reading.problems[0].extra["orig_verify"] is True
    assert reading.problems[0].extra["orig_answer_type"] == "Numerical"
    assert reading.notes["`verify` is not that of the common layout and is left aside"] == 2
    assert reading.notes["`caption` is not that of the common layout and is left aside"] == 1


USER = {"role": "user", "content": "How many?"}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": "?", "gold": "1"}, "there is no question.*the row has text \\(str\\), gold \\(str\\)"),
        ({"question": "?", "reply": "1"}, "there is no answer.*reply \\(str\\)"),
        ({"question": "?", "answer": ["1", "2"]}, r"\['1', '2'\], not one text or number; several values need"),
        ({"question": "?", "answer": "['1', '2']"}, "several values need"),
        ({"question": "?", "answer": True}, "`answer` is True"),
        ({"question": "?", "answer": "<answer>1</answer><answer>2</answer>"}, "2 different answers: '1', '2'"),
        ({"question": "?", "answer": "<answer>1"}, "tags that do not match"),
        ({"question": "?", "answer": "<think>1"}, "thinking that does not end"),
        ({"question": "?", "answer": "1", "video": "a.mp4"}, "has `video` \\('a.mp4'\\)"),
        ({"question": "?", "answer": "1", "chart": {"bytes": "png"}}, "`chart` holds a picture"),
        ({"question": "?", "answer": "1", "image": "http://x.org/a.png"}, "is on the web"),
        ({"question": "<image 1>?", "answer": "1"}, "the row has the pictures \\[\\]"),
        ({"messages": [USER, {"role": "tool", "content": "x"}], "answer": "1"}, "messages.1 is not .*'tool'"),
        ({"messages": [USER, USER], "answer": "1"}, "must alternate"),
        ({"messages": [USER]}, "there is no answer"),
        ({"messages": [USER | {"content": [{"type": "video", "video": "x"}]}], "answer": "1"}, "'video'"),
        ({"messages": [USER | {"content": [7]}], "answer": "1"}, "this one is 7"),
        ({"messages": [USER | {"content": "<video>?"}], "answer": "1"}, "the placeholder <video>"),
        ({"messages": [USER | {"tool_calls": [1]}], "answer": "1"}, "has `tool_calls`"),
        ({"messages": [[USER]], "answer": "1"}, "is not an object whose `role`"),
        ({"messages": [USER], "conversations": [USER], "answer": "1"}, "turns in conversations and messages"),
        ({"question": "?", "answer": "1", "images": ["0.png"], "image": "1.png"}, "in images and image"),
        ({"question": "?", "choices": ["a", "b"], "options": ["a", "c"], "answer": "A"}, "differ"),
    ],
)
def test_what_is_not_understood_is_refused_with_what_the_row_has(read, row, reason):
    parquet = "chart" in row
    row = row | {"chart": {"bytes": png()}} if parquet else row
    reading = read(row, modality="text", parquet=parquet)
    assert list(reading.problems) == []
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(reading.rejected[0].reason)


def test_a_picture_in_a_message_is_not_lost_in_a_phase_of_texts(read):
    part = {"type": "image_url", "value": "0.png"}
    row = {"id": "p", "messages": [{"role": "user", "content": [part, {"type": "text", "text": "How many?"}]}]}
    reading = read(row | {"answer": "3"}, modality="text")
    assert "the row has images" in reading.rejected[0].reason
    assert len(read(row | {"answer": "3"}).problems[0].images) == 1


def test_pictures_may_be_data_addresses_or_base64(read):
    import base64

    text = base64.b64encode(png(9, (90, 90))).decode()
    rows = [{"question": "?", "answer": "1", "image": given} for given in (f"data:image/png;base64,{text}", text)]
    assert [p.images for p in read(*rows).problems] == [(png(9, (90, 90)),)] * 2


def test_contexts_and_systems_that_are_not_shown_are_said(read):
    row = {"messages": [{"role": "system", "content": "Be brief."}, USER], "answer": "1", "hint": "Look."}
    reading = read(row, modality="text")
    assert reading.problems[0].question == "How many?"
    assert set(reading.notes) == {
        "a system message is not shown: the run has its own",
        "`hint` is kept beside the problem, not shown",
    }
