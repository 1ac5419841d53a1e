"""Conversations in the forms of other trainers, as turns with `<image>` marks; what is not understood is refused.

Read are LLaVA and Qwen-VL (`conversations` of `from`/`value`, `<img>path</img>`), ShareGPT and LLaMA-Factory (also
`instruction`/`input`/`output`/`history`), ms-swift (`messages`, or `query`/`response`/`history`), OpenAI's and Qwen's
message parts, verl and TRL (`prompt` and `completion` as messages).
"""

from __future__ import annotations

import dataclasses
import re
from typing import Literal

from infimmr_jax.data.pictures import decode_url
from infimmr_jax.data.raw_records import Record, decode_json
from infimmr_jax.data.records import DataError
from infimmr_jax.data.rows import quoted

Role = Literal["system", "user", "assistant"]
IMAGE_MARK = "<image>"
ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
}
# A list of turns, or that list as JSON text; the first that a row has is read.
TURN_KEYS = ("conversations", "messages", "message", "prompt")
ASKED, SAID = ("query", "instruction", "prompt"), ("response", "output", "completion")
# Columns that belong to a conversation besides its turns.
BESIDE = ("history", "input", "system")
# What is played or called can not be shown, and placeholders are filled in by other programs.
UNREADABLE = ("video", "videos", "audio", "audios", "tools", "functions", "objects")
_PLACEHOLDER = re.compile(r"<(?:video|audio|bbox|ref-object)>")
_TAGGED_PICTURE = re.compile(r"<img>([^<>]{1,1000})</img>")
_TEXT_KEYS = ("text", "value", "content")
_PICTURE_KEYS = ("image", "image_url", "url", "path", "base64", "source", "value")
# They say how a picture is scaled or stored, which `data.image` decides here.
_HARMLESS = ("min_pixels", "max_pixels", "resized_height", "resized_width", "detail", "cache_control", "index", "id")
_TURN_KEYS = ("role", "from", "content", "value", "name", "id", "index", "loss", "weight", "train")


@dataclasses.dataclass(frozen=True)
class Turn:
    """One message; `<image>` marks in a user's text say where the images go."""

    role: Role
    text: str


@dataclasses.dataclass(frozen=True)
class Dialogue:
    """Turns, and the pictures that their parts bring along, in the order of the marks (none: columns of the row do)."""

    turns: tuple[Turn, ...]
    pictures: tuple[str | bytes, ...]

    @property
    def marks(self) -> int:
        """How many `<image>` marks the turns have."""
        return sum(turn.text.count(IMAGE_MARK) for turn in self.turns)


def read_dialogue(record: Record) -> tuple[Dialogue | None, frozenset[str]]:
    """Return the conversation of a row, None where it has none, and the columns it was read from.

    Raises DataError, quoting it, for a role, a turn or a part that is not understood, and for a video or sound.
    """
    for key in UNREADABLE:
        if record.get(key):
            raise DataError(f"the row has `{key}` ({quoted(record[key])}), which can not be shown here")
    columns = [key for key in TURN_KEYS if record.get(key) and _is_list(record[key], key)]
    if len(columns) > 1 and columns != ["messages", "prompt"]:
        raise DataError(f"the row has turns in {' and '.join(columns)}; one of them must go")
    if columns:
        decoded = _decoded(record[columns[0]], columns[0])
        if not isinstance(decoded, list):
            raise DataError(f"`{columns[0]}` is {quoted(decoded)}, not a list of turns")
        turns = list(decoded)
        if columns[0] == "prompt" and record.get("completion"):
            ends = _decoded(record["completion"], "completion")
            turns += ends if isinstance(ends, list) else [{"role": "assistant", "content": ends}]
            columns.append("completion")
        where = columns[0]
    else:
        asked = next((key for key in ASKED if isinstance(record.get(key), str) and record[key].strip()), None)
        said = next((key for key in SAID if isinstance(record.get(key), str)), None)
        if asked is None or said is None:
            return None, frozenset()
        texts = [record[asked], record.get("input") or ""] if asked == "instruction" else [record[asked]]
        if not all(isinstance(text, str) for text in texts):
            raise DataError(f"`input` is {quoted(record['input'])}, not a text")
        turns = [{"role": "user", "content": "\n".join(filter(None, texts))}]
        turns.append({"role": "assistant", "content": record[said]})
        turns = _history(record.get("history")) + turns
        columns, where = [asked, said, *BESIDE], "turns"
    if isinstance(record.get("system"), str) and record["system"].strip():
        turns.insert(0, {"role": "system", "content": record["system"]})
        columns.append("system")
    pictures: list[str | bytes] = []
    read = []
    for number, turn in enumerate(turns):
        one, shown = _turn(turn, f"{where}.{number}")
        read.append(one)
        pictures += shown
    dialogue = Dialogue(tuple(read), tuple(pictures))
    if pictures and dialogue.marks != len(pictures):
        raise DataError(f"the turns bring {len(pictures)} pictures and have places for {dialogue.marks}")
    return dialogue, frozenset(columns)


def read_picture(item: object) -> str | bytes:
    """Return the path or the encoded bytes of a picture: a path, a `data:` address, or an object with either.

    Raises DataError for anything else, also for an address on the web: pictures are not fetched.
    """
    if isinstance(item, dict):
        given = {key: value for key, value in item.items() if value is not None and key not in (*_HARMLESS, "type")}
        if given.get("bytes") is not None:
            item = given["bytes"]
        elif set(given) >= {"data", "media_type"}:
            item = f"data:{given['media_type']};base64,{given['data']}"
        else:
            places = [given[key] for key in ("path", *_PICTURE_KEYS) if given.get(key)]
            return read_picture(places[0]) if places and not isinstance(places[0], dict) else _refuse_picture(item)
    if isinstance(item, bytes):
        return item
    return decode_url(item) if isinstance(item, str) and item else _refuse_picture(item)


def _refuse_picture(item: object) -> str | bytes:
    raise DataError(f"the picture {quoted(item)} is neither a path nor encoded bytes")


def _is_list(value: object, key: str) -> bool:
    """Whether a column holds turns: a list, or JSON text (which `message` and `prompt` need not be)."""
    if isinstance(value, str):
        return key not in ("message", "prompt") or value.lstrip()[:2] in ("[{", "[ ", "[\n")
    return isinstance(value, list)


def _decoded(value: object, key: str) -> object:
    if not isinstance(value, str) or key == "completion":
        return value
    try:
        value = decode_json(value.encode("utf-8", "surrogatepass"))
    except DataError as error:
        raise DataError(f"`{key}` is a text, but {error}") from error
    return value


def _history(value: object) -> list[object]:
    """LLaMA-Factory's and ms-swift's earlier turns: pairs of what was asked and answered."""
    if not value:
        return []
    if not isinstance(value, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in value):
        raise DataError(f"`history` is {quoted(value)}, not a list of pairs")
    roles = ("user", "assistant")
    return [{"role": role, "content": text} for pair in value for role, text in zip(roles, pair, strict=True)]


def _turn(message: object, where: str) -> tuple[Turn, list[str | bytes]]:
    said = message.get("role", message.get("from")) if isinstance(message, dict) else None
    role = ROLES.get(said) if isinstance(said, str) else None
    if role is None or not isinstance(message, dict):
        raise DataError(f"{where} is not an object whose `role` is one of {', '.join(ROLES)}: {quoted(message)}")
    more = [key for key, value in message.items() if key not in _TURN_KEYS and value not in (None, [], "", {})]
    if more:
        raise DataError(f"{where} has `{more[0]}` ({quoted(message[more[0]])}), which is not understood")
    for key in ("loss", "weight", "train"):
        if key in message and message[key] is not None and not message[key]:
            raise DataError(f"{where} is not to be learnt ({key}: {quoted(message[key])}), which can not be done here")
    content = message.get("content") if message.get("content") is not None else message.get("value")
    pictures: list[str | bytes] = []
    if isinstance(content, list | dict):
        parts = [_part(part, where) for part in (content if isinstance(content, list) else [content])]
        # Some sets write the marks into the text as well as giving the pictures as parts.
        marked = any(IMAGE_MARK in text for text, shown in parts if shown is None)
        content = "".join(text if shown is None or not marked else "" for text, shown in parts)
        pictures = [picture for _, shown in parts if shown is not None for picture in shown]
    if not isinstance(content, str) or not content.strip():
        raise DataError(f"{where}: `content` is missing, empty, or neither a text nor a list of parts")
    tagged = _TAGGED_PICTURE.findall(content)
    if tagged and IMAGE_MARK not in content:
        content = _TAGGED_PICTURE.sub(IMAGE_MARK, content)
        pictures += [read_picture(path) for path in tagged]
    placeholder = _PLACEHOLDER.search(content)
    if placeholder:
        raise DataError(f"{where} has the placeholder {placeholder[0]}, which nothing here fills in")
    if role != "user" and IMAGE_MARK in content:
        raise DataError(f"{where}: only a user's message may hold an {IMAGE_MARK} mark")
    return Turn(role, content), pictures


def _part(part: object, where: str) -> tuple[str, list[str | bytes] | None]:
    """The text of a part of a message, and its picture: None for a text, none where a column of the row has it."""
    if isinstance(part, str):
        return part, None
    if isinstance(part, dict):
        given = {
            key: value for key, value in part.items() if value is not None and value != "" and key not in _HARMLESS
        }
        kind = given.pop("type", None)
        pictures = [key for key in ("bytes", *_PICTURE_KEYS) if key in given]
        texts = [key for key in _TEXT_KEYS if key in given]
        if kind in ("image", "image_url", "input_image") or (kind is None and set(pictures) & {"image", "image_url"}):
            if set(given) <= {"bytes", "path"} and "bytes" in given:
                return IMAGE_MARK, [read_picture(given)]
            if len(given) == len(pictures) <= 1:
                return IMAGE_MARK, [read_picture(given[key]) for key in pictures]
        elif kind in ("text", "input_text", "output_text", None) and len(given) == len(texts) <= 1:
            text = given[texts[0]] if texts else ""
            if isinstance(text, str) and (texts or "text" in part):
                return text, None
    raise DataError(
        f"{where}: a part of `content` must be {{type: text, text: ..}} or {{type: image, image: ..}}; this one is "
        f"{quoted(part)}"
    )


def row_pictures(record: Record) -> tuple[dict[int, str | bytes], frozenset[str]]:
    """Return the pictures of a row's columns by number (from 1), and the columns they were read from.

    Columns are `images` or `image`, MathVista's `decoded_image` before its path, or a column a picture as MMMU has them
    (`image_1`, ..). Raises DataError for a picture in another column, which would be lost.
    """
    numbered = {int(match[1]): key for key in record if (match := re.fullmatch(r"image_?([1-9]\d?)", str(key)))}
    columns = [key for key in ("decoded_image", "images", "image") if record.get(key) not in (None, "", [])]
    single = [key for key in numbered.values() if record[key] not in (None, "")]
    if "decoded_image" in columns:
        columns = [key for key in columns if key != "image" or not isinstance(record[key], str)]
    if len(columns) + bool(single) > 1:
        raise DataError(f"the row has pictures in {' and '.join([*columns, *single])}; one of them must go")
    used = frozenset(("decoded_image", "images", "image", *numbered.values()))
    for key, value in record.items():
        if key not in used and isinstance(value, dict) and isinstance(value.get("bytes"), bytes):
            raise DataError(f"the column `{key}` holds a picture that no reader expects there; call it `image`")
    if single:
        pictures = {number: record[key] for number, key in sorted(numbered.items()) if key in single}
        return {number: read_picture(item) for number, item in pictures.items()}, used
    value = record[columns[0]] if columns else []
    items = value if isinstance(value, list) else [value]
    return {number: read_picture(item) for number, item in enumerate(items, start=1)}, used


__all__ = ["IMAGE_MARK", "Dialogue", "Role", "Turn", "read_dialogue", "read_picture", "row_pictures"]
