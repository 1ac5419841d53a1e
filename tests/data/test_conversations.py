"""Demonstrations in the messages form: what is read, and what is refused with its row and reason."""

import json
import re

import pytest
from PIL import Image

from infimmr_jax.config import ImageSection
from infimmr_jax.data.conversations import read_conversations
from infimmr_jax.data.records import DataError

LIMITS = ImageSection()
USER, SAID = {"role": "user", "content": "How many?"}, {"role": "assistant", "content": "4"}


@pytest.fixture
def read(tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")

    def write(*rows):
        path = tmp_path / "talk.jsonl"
        path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
        return read_conversations(path, 2, LIMITS)

    return write


def test_texts_parts_systems_and_images_are_read(read, tmp_path):
    parts = {"role": "user", "content": [{"type": "text", "text": "Look: "}, {"type": "image"}]}
    kept, rejected = read(
        {"id": "one", "messages": [{"role": "system", "content": "Be brief."}, USER, SAID]},
        {"messages": [parts, SAID, USER, SAID], "images": ["a.png"]},
        {"messages": [USER, SAID], "images": ["a.png"]},
    )
    assert not rejected
    assert [conversation.id for conversation in kept] == ["one", "2", "3"]
    assert [turn.role for turn in kept[0].turns] == ["system", "user", "assistant"]
    assert kept[1].turns[0].text == "Look: <image>"
    assert kept[1].images == (str(tmp_path / "a.png"),)
    assert kept[2].turns[0].text == "<image>How many?", "without marks the images come first"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("{broken", "not a JSON object"),
        ({"messages": []}, "`messages` is missing"),
        ({"messages": [USER]}, "user and assistant must alternate and the assistant end"),
        ({"messages": [USER, USER, SAID]}, "must alternate"),
        ({"messages": [USER, {"role": "system", "content": "x"}, SAID]}, "a system message stands after the first"),
        ({"messages": [USER, {"role": "tool", "content": "x"}]}, r"messages\.1 is not an object whose `role`"),
        ({"messages": [USER, {"role": "assistant", "content": " "}]}, r"messages\.1: `content` is missing, empty"),
        ({"messages": [USER, {"role": "assistant", "content": "<image>"}]}, "only a user's message may hold"),
        ({"messages": [{"role": "user", "content": [{"type": "audio"}]}, SAID]}, "a part of `content` must be"),
        ({"messages": [USER, SAID], "images": ["b.png"]}, "there is no image file"),
        ({"messages": [USER, SAID], "images": ["../a.png"]}, "leads outside"),
        ({"messages": [{"role": "user", "content": "<image>"}, SAID]}, "has an <image> mark"),
    ],
)
def test_bad_rows_are_listed_with_their_reason(read, row, reason):
    kept, rejected = read({"messages": [USER, SAID]}, row)
    assert len(kept) == 1
    assert len(rejected) == 1
    assert rejected[0].row == 2
    assert re.search(reason, rejected[0].reason)


def test_a_file_without_any_conversation_is_an_error(read, tmp_path):
    with pytest.raises(DataError, match=r"no conversation that can be used; the first rejected: talk\.jsonl, row 1"):
        read({"messages": []})
    with pytest.raises(DataError, match="there is no file"):
        read_conversations(tmp_path / "none.jsonl", 2, LIMITS)


PART = {"type": "image", "image": "a.png"}
IMAGE_URL = {"type": "image_url", "image_url": {"url": "a.png"}}
TEXT = {"type": "text", "text": "How many?"}


@pytest.mark.parametrize(
    "row",
    [
        {"image": "a.png", "messages": [USER, SAID]},
        {"image": "a.png", "messages": [{"role": "user", "content": "<image>How many?"}, SAID]},
        {"messages": [{"role": "user", "content": [PART, TEXT]}, SAID]},
        {"messages": [{"role": "user", "content": [IMAGE_URL, TEXT]}, SAID]},
        {"images": ["a.png"], "messages": [{"role": "user", "content": [{"type": "image"}, TEXT]}, SAID]},
        {
            "image": "a.png",
            "conversations": [{"from": "human", "value": "<image>How many?"}, {"from": "gpt", "value": "4"}],
        },
        {"images": [{"path": "a.png", "bytes": None}], "messages": [USER, SAID]},
        {"images": "a.png", "query": "How many?", "response": "4"},
        {"image": "a.png", "instruction": "How many?", "input": "", "output": "4"},
        {"image": "a.png", "prompt": [USER], "completion": [SAID]},
    ],
)
def test_a_picture_is_shown_wherever_the_row_has_it(read, tmp_path, row):
    ((conversation,), rejected) = read(row)
    assert not rejected
    assert conversation.images == (str(tmp_path / "a.png"),)
    assert [turn.text for turn in conversation.turns] == ["<image>How many?", "4"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"image": "b.png", "messages": [{"role": "user", "content": [PART, TEXT]}, SAID]}, "others in a column"),
        ({"videos": ["a.mp4"], "messages": [USER, SAID]}, "has `videos`"),
        ({"messages": [USER, SAID | {"loss": False}]}, "is not to be learnt"),
        ({"messages": [USER, SAID], "chart": {"bytes": "x"}, "image": {"a": 1}}, "neither a path nor encoded bytes"),
        ("[" * 100_000, "not a JSON object"),
        (
            '{"id": "a\\ud800", "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}',
            "`id`",
        ),
    ],
)
def test_rows_that_would_lose_something_are_refused(read, row, reason):
    kept, rejected = read({"messages": [USER, SAID]}, row)
    assert len(kept) == 1
    assert reason in rejected[0].reason
    str(rejected[0]).encode()


def test_earlier_turns_and_a_system_text_of_llama_factory(read):
    row = {"instruction": "And now?", "output": "5", "history": [["How many?", "4"]], "system": "Be brief."}
    ((conversation,), _) = read(row)
    assert [turn.role for turn in conversation.turns] == ["system", "user", "assistant", "user", "assistant"]
    assert conversation.turns[-1].text == "5"
