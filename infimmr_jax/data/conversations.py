"""Demonstrations as conversations in any form that `turns` reads; all turns of the assistant are to be learnt."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from infimmr_jax.config import ImageSection
from infimmr_jax.data.layouts import unexpected
from infimmr_jax.data.raw_records import raw_records
from infimmr_jax.data.readers import Rejected
from infimmr_jax.data.records import DataError
from infimmr_jax.data.rows import problem_from_row
from infimmr_jax.data.turns import IMAGE_MARK, Role, Turn, read_dialogue, row_pictures


@dataclasses.dataclass(frozen=True)
class Conversation:
    """Turns that end with the assistant's, and the images of their marks, in order."""

    id: str
    turns: tuple[Turn, ...]
    images: tuple[str | bytes, ...] = ()


def read_conversations(
    path: Path, max_images: int, limits: ImageSection, size: int | None = None
) -> tuple[list[Conversation], list[Rejected]]:
    """Read a .jsonl, .json or .parquet file of conversations; every row that can not be used is listed.

    A row has `messages` (or another form that `turns.read_dialogue` knows), perhaps `id`, and perhaps pictures: in
    parts of the messages, or in columns (`turns.row_pictures`). Image paths are relative to the file's folder and may
    not leave it; without marks the images come first in the first user turn. `size` ends the reading once so many are
    kept. Raises DataError when the file is missing or holds no usable row.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path} of conversations")
    kept: list[Conversation] = []
    rejected: list[Rejected] = []
    for number, row in raw_records(path):
        given = row.get("id") if isinstance(row, dict) else None
        identity = str(number) if given is None or isinstance(given, list | dict) else str(given)[:1000]
        try:
            kept.append(_conversation(row, identity, path.parent, max_images, limits))
        except DataError as error:
            rejected.append(Rejected(path.name, number, identity, str(error)))
        except Exception as error:
            rejected.append(Rejected(path.name, number, identity, str(unexpected(error))))
        if len(kept) == size:
            break
    if not kept:
        first = f"; the first rejected: {rejected[0]}" if rejected else ""
        raise DataError(f"{path} holds no conversation that can be used{first}")
    return kept, rejected


def _conversation(row: object, identity: str, folder: Path, max_images: int, limits: ImageSection) -> Conversation:
    if not isinstance(row, dict):
        said = f": {row}" if isinstance(row, DataError) else ""
        raise DataError(f"the row is not a JSON object{said}")
    dialogue, _ = read_dialogue(row)
    if dialogue is None:
        raise DataError("`messages` is missing or is not a list of messages")
    turns, in_columns = dialogue.turns, row_pictures(row)[0]
    roles = [turn.role for turn in turns]
    if "system" in roles[1:]:
        raise DataError("a system message stands after the first message")
    spoken = roles[1:] if roles[0] == "system" else roles
    if len(spoken) % 2 or spoken != ["user", "assistant"] * (len(spoken) // 2) or not spoken:
        raise DataError(f"the roles are {', '.join(roles)}; user and assistant must alternate and the assistant end")
    pictures = [*dialogue.pictures] or [*in_columns.values()]
    if dialogue.pictures and in_columns and [*in_columns.values()] != pictures:
        raise DataError("the row has pictures in its messages and others in a column; one of them must go")
    text = "\n".join(turn.text for turn in turns if turn.role == "user")
    # The images are checked by the same rules as those of problems.
    probe = {"id": identity, "question": text, "answer": "-", "answer_type": "string", "images": pictures}
    images = problem_from_row(probe, folder, "image" if pictures else "text", max_images, limits).images
    if images and IMAGE_MARK not in text:
        first = roles.index("user")
        marked = Turn("user", IMAGE_MARK * len(images) + turns[first].text)
        turns = (*turns[:first], marked, *turns[first + 1 :])
    return Conversation(identity, turns, images)


__all__ = ["IMAGE_MARK", "Conversation", "Role", "Turn", "read_conversations"]
