"""Demonstrations in the messages form: conversations whose assistant turns are all to be learnt."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

from infimmr_jax.config import ImageSection
from infimmr_jax.data.readers import Rejected
from infimmr_jax.data.records import DataError
from infimmr_jax.data.rows import problem_from_row

Role = Literal["system", "user", "assistant"]
IMAGE_MARK = "<image>"


@dataclasses.dataclass(frozen=True)
class Turn:
    """One message; `<image>` marks in a user's text say where the images go."""

    role: Role
    text: str


@dataclasses.dataclass(frozen=True)
class Conversation:
    """Turns that end with the assistant's, and the images of their marks, in order."""

    id: str
    turns: tuple[Turn, ...]
    images: tuple[str | bytes, ...] = ()


def read_conversations(
    path: Path, max_images: int, limits: ImageSection, size: int | None = None
) -> tuple[list[Conversation], list[Rejected]]:
    """Read a JSONL file of `{id?, messages: [{role, content}, ..], images?}`; every row that can not be used is listed.

    `content` is a text, or a list of parts `{type: text, text}` and `{type: image}`. Image paths are relative to the
    file's folder and may not leave it; without marks the images come first in the first user turn. `size` ends the
    reading once so many are kept. Raises DataError when the file is missing or holds no usable row.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path} of conversations")
    kept: list[Conversation] = []
    rejected: list[Rejected] = []
    for number, row in enumerate(_rows(path), start=1):
        identity = str(row.get("id", number)) if isinstance(row, dict) else str(number)
        try:
            kept.append(_conversation(row, identity, path.parent, max_images, limits))
        except DataError as error:
            rejected.append(Rejected(path.name, number, identity, str(error)))
        if len(kept) == size:
            break
    if not kept:
        first = f"; the first rejected: {rejected[0]}" if rejected else ""
        raise DataError(f"{path} holds no conversation that can be used{first}")
    return kept, rejected


def _rows(path: Path) -> Iterator[Any]:
    with path.open("rb") as lines:
        for line in lines:
            try:
                yield json.loads(line)
            except ValueError:
                yield None


def _conversation(row: Any, identity: str, folder: Path, max_images: int, limits: ImageSection) -> Conversation:
    if not isinstance(row, dict):
        raise DataError("the row is not a JSON object")
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        raise DataError("`messages` is missing or is not a list of messages")
    turns = tuple(_turn(message, number) for number, message in enumerate(messages))
    roles = [turn.role for turn in turns]
    if "system" in roles[1:]:
        raise DataError("a system message stands after the first message")
    spoken = roles[1:] if roles[0] == "system" else roles
    if len(spoken) % 2 or spoken != ["user", "assistant"] * (len(spoken) // 2):
        raise DataError(f"the roles are {', '.join(roles)}; user and assistant must alternate and the assistant end")
    text = "\n".join(turn.text for turn in turns if turn.role == "user")
    # The images are checked by the same rules as those of problems.
    pictures = row.get("images")
    probe = {"id": identity, "question": text, "answer": "-", "answer_type": "string", "images": pictures}
    images = problem_from_row(probe, folder, "image" if pictures else "text", max_images, limits).images
    if images and IMAGE_MARK not in text:
        first = roles.index("user")
        shown = Turn("user", IMAGE_MARK * len(images) + turns[first].text)
        turns = (*turns[:first], shown, *turns[first + 1 :])
    return Conversation(identity, turns, images)


def _turn(message: Any, number: int) -> Turn:
    where = f"messages.{number}"
    if not isinstance(message, dict) or message.get("role") not in get_args(Role):
        raise DataError(f"{where} is not an object whose `role` is one of {', '.join(get_args(Role))}")
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(_part(part, where) for part in content)
    if not isinstance(content, str) or not content.strip():
        raise DataError(f"{where}: `content` is missing, empty, or neither a text nor a list of parts")
    if message["role"] != "user" and IMAGE_MARK in content:
        raise DataError(f"{where}: only a user's message may hold an {IMAGE_MARK} mark")
    return Turn(message["role"], content)


def _part(part: Any, where: str) -> str:
    if isinstance(part, dict) and part.get("type") == "image":
        return IMAGE_MARK
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return part["text"]
    raise DataError(f"{where}: a part of `content` must be {{type: text, text: ..}} or {{type: image}}")
