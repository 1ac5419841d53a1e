"""Every field of every reader's rows with 40 hostile values: a rejection or a sentence comes out, and soon."""

import json
import time

import pytest
from PIL import Image

from infimmr_jax.config import DataSection, ImageSection, SourceSection
from infimmr_jax.data.conversations import read_conversations
from infimmr_jax.data.layouts import LAYOUTS
from infimmr_jax.data.readers import read_rows
from infimmr_jax.errors import UserError
from infimmr_jax.rewards.golds import GoldCheck

DEEP = "[" * 400 + "]" * 400
HOSTILE = [
    *(None, True, False, 0, -1, 1.5, float("nan"), float("inf"), 10**400, -(10**400), 1e-320),
    *("", " \n", "\x00", "half \ud800", "\u202e", "x" * 200_000, "9" * 5_000, " " * 100_000 + "x"),
    *("<answer>" * 20_000, "<<" * 40_000, "(" * 20_000, "\\boxed{" * 9_000, "<think>", "<image>" * 9_000, "<image 99>"),
    *("['a', 'b']", "[" * 9_000, "-" * 9_000 + "1", "../../secret.png", "/etc/passwd", "http://example.org/a.png"),
    *("data:image/png;base64,AAAA", [], [[]], [None, 1, "a"], ["a"] * 2_000, {}, {"bytes": "x", "path": None}),
    *({"a": {"b": [{}]}}, json.loads(DEEP), [{"role": "user"}], [{"role": "user", "content": [{"type": "video"}]}]),
    *([{"from": "human", "value": "\ud800"}], {"rule": "iou", "threshold": 10**400}, {"text": ["a"], "label": ["B"]}),
]
BASE = {"id": "a", "question": "Which?", "answer": "A", "images": ["ok.png"], "caption": "c", "solution": "s"}
TURNS = [{"role": "user", "content": [{"type": "image", "image": "ok.png"}, {"type": "text", "text": "?"}]}]
LOCATED = BASE | {"answer": [0, 0, 5, 5], "answer_type": "box", "image_size": [60, 40], "answer_image": 1}
ROWS = {
    "jsonl": [
        BASE
        | {"answer_type": "choice", "choices": ["x", "y"], "level": 1, "source": "s", "subject": "t", "pass_rate": 1},
        LOCATED | {"verify": {"rule": "iou", "threshold": 0.5}, "seen_size": None},
        BASE | {"answer": "7", "answer_type": "number", "verify": {"tolerance": 0.1, "alternatives": ["8"]}},
    ],
    "fields": [
        BASE
        | {"options": ["x", "y"], "answer_type": None, "level": "Level 5", "hint": "h", "data_source": "d", "A": "x"},
        LOCATED | {"verify": {"rule": "iou"}, "seen_size": None},
        {"messages": TURNS, "reward_model": {"ground_truth": "1"}, "extra_info": {"answer": "1"}, "tools": ""},
        {
            "conversations": [
                *TURNS,
                {"role": "assistant", "content": "1"},
                *TURNS,
                {"role": "assistant", "content": "2"},
            ]
        },
        {"instruction": "?", "input": "x", "output": "1", "history": [["a", "b"]], "system": "s", "image": "ok.png"},
        {"prompt": TURNS, "completion": "3", "image_1": None},
    ],
    "gsm8k": [{"question": "?", "answer": "one\n#### 1"}],
    "math": [{"problem": "?", "solution": "\\boxed{2}", "answer": "2", "level": 1, "type": "t", "unique_id": "u"}],
    "deepscaler": [{"problem": "?", "answer": "2", "solution": "s", "difficulty": 1.5, "source": "s"}],
    "virl39k": [BASE | {"image": ["ok.png"], "qid": "q", "category": "c", "PassRate_7BBase": 0.5}],
    "geometry3k": [{"id": 1, "problem": "?", "images": ["ok.png"], "answer": "3", "choices": ["3", "4"]}],
    "math_folder": [{"problem": "?", "solution": "\\boxed{2}", "level": "Level 1", "type": "t"}],
    "geometry3k_folder": [
        {"problem_text": "?", "annotat_text": "?", "choices": ["3", "4"], "answer": "A", "problem_type_graph": ["t"]}
    ],
    "conversations": [
        {"id": "a", "messages": [*TURNS, {"role": "assistant", "content": "1"}], "images": None, "system": "s"},
        {"conversations": [{"from": "human", "value": "<image>?"}, {"from": "gpt", "value": "1"}], "image": "ok.png"},
    ],
}
SECONDS = 1.0  # of processor time, for the 40 rows of a field together


def places(value, path=()):
    """Every place in a row that can hold another value: its keys, and those of objects and lists inside it."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield (*path, key)
        yield from places(item, (*path, key))


def changed(row, path, value):
    if not path:
        return value
    copy = dict(row) if isinstance(row, dict) else list(row)
    copy[path[0]] = changed(row[path[0]], path[1:], value)
    return copy


def hostile_rows(reader):
    for number, row in enumerate(ROWS[reader]):
        for path in places(row):
            yield f"{number}: {path}", [changed(row, path, value) for value in HOSTILE]


def write(folder, reader, rows):
    """Write the rows as the reader's file or folder, and return its name."""
    if reader not in LAYOUTS or not LAYOUTS[reader].is_folder:
        (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return "a.jsonl"
    for number, row in enumerate(rows):
        place = folder / "rows" / str(number)
        place.mkdir(parents=True, exist_ok=True)
        (place / "data.json").write_text(json.dumps(row))
        if reader == "geometry3k_folder":
            (place / "logic_form.json").write_text(json.dumps({"diagram_logic_form": row}))
    return "rows"


def test_every_reader_has_rows_here():
    assert set(ROWS) == {*LAYOUTS, "conversations"}
    assert len(HOSTILE) >= 40


@pytest.mark.parametrize("reader", list(ROWS))
def test_a_hostile_value_in_any_field_is_a_rejection_and_takes_no_time(tmp_path, reader):
    Image.new("RGB", (60, 40)).save(tmp_path / "ok.png")
    data, golds = DataSection(root=tmp_path, max_images=2), GoldCheck()
    for field, rows in hostile_rows(reader):
        name = write(tmp_path, reader, rows)
        began = time.process_time()
        try:
            if reader == "conversations":
                kept, rejected = read_conversations(tmp_path / name, 2, ImageSection())
                answers = len(kept)
            else:
                source = SourceSection(reader=reader, path=name)
                reading = read_rows(source, "caption" if reader == "jsonl" else "image", data, golds)
                rejected, answers = reading.rejected, len(reading.problems)
            assert {loss.row for loss in rejected} <= set(range(1, len(rows) + 1)), field
            assert answers + len({loss.row for loss in rejected}) >= len(rows), f"a row of {field} is lost"
            sentences = [str(loss) for loss in rejected]
        except UserError as error:
            sentences = [str(error)]
        assert time.process_time() - began < SECONDS, f"{field} takes too long"
        "".join(sentences).encode()
        assert max(map(len, sentences), default=0) < 2_000, field
