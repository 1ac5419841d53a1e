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
