"""One row of a file becomes one Problem, or a sentence that says why it can not."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import cast, get_args

from infimmr_jax.config import ImageSection
from infimmr_jax.data.answer_forms import FORMS, answer_text
from infimmr_jax.data.pictures import check_image, image_size
from infimmr_jax.data.records import DataError, Problem
from infimmr_jax.data.roots import resolve_below
from infimmr_jax.names import ANSWER_TYPES, CHOICE_LETTERS, LOCATED, AnswerType, Modality

MAX_ID = 500  # characters
MAX_TEXT = 20_000  # characters of a question, caption, solution or choice; the longest published question has 9,000
MAX_SIDE = 1e9  # of a picture that coordinates refer to
KNOWN_KEYS = frozenset(field.name for field in dataclasses.fields(Problem)) - {"row"}


def problem_from_row(row: object, folder: Path, modality: Modality, max_images: int, limits: ImageSection) -> Problem:
    """Check one decoded row of the common layout and return its Problem; image paths become absolute.

    `folder` is the directory that image paths are relative to and that they may not leave; an image may also be its
    encoded bytes. Raises DataError with the first reason found: a missing key, a wrong type, an empty or oversized
    text, a choice that is not offered, images that are missing, outside the folder, broken or too large, or that do
    not fit the modality.
    """
    if modality not in get_args(Modality):
        raise ValueError(f"there is no modality {modality!r}; known: {', '.join(get_args(Modality))}")
    if not isinstance(row, dict):
        raise DataError(f"the row is a {type(row).__name__}, not an object with keys")
    identity = _identity(row)
    question = _text(row, "question", required=True)
    answer_type = row.get("answer_type")
    if not isinstance(answer_type, str) or answer_type not in ANSWER_TYPES:
        raise DataError(f"`answer_type` is {quoted(answer_type)}; it must be one of {', '.join(ANSWER_TYPES)}")
    if answer_type in FORMS and row.get("answer") is not None:
        row = {**row, "answer": answer_text(row["answer"], answer_type)}
    answer = _text(row, "answer", required=True)
    choices = _texts(row, "choices")
    _check_choices(answer_type, answer, choices)
    caption = _text(row, "caption", required=modality == "caption")
    images = _images(_pictures(row), (question, *choices), folder, modality, max_images, limits)
    extra = {key: value for key, value in row.items() if key not in KNOWN_KEYS}
    _check_extra(extra)
    if answer_type in LOCATED:
        extra |= _located(row, images, limits)
    return Problem(
        id=identity,
        question=question,
        answer=answer,
        answer_type=cast(AnswerType, answer_type),
        choices=choices,
        images=images,
        caption=caption or None,
        solution=_text(row, "solution") or None,
        source=_text(row, "source"),
        subject=_text(row, "subject") or None,
        level=_level(row.get("level")),
        extra=extra,
    )


def quoted(value: object) -> str:
    """Return a value as it stands in a row, at most 60 characters of it."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of more than 4,300 digits; deep nesting
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}.."


def describe_keys(record: Mapping[str, object]) -> str:
    """Return the columns of a row that hold something, and of which kind, for a message."""
    kinds = [f"{str(key)[:30]} ({type(value).__name__})" for key, value in record.items() if value is not None]
    return ", ".join(kinds[:12]) + (f" and {len(kinds) - 12} more" if len(kinds) > 12 else "") if kinds else "no values"


def _identity(row: Mapping[str, object]) -> str:
    value = row.get("id")
    if value is None or value == "":
        raise DataError(f"`id` is missing; the row has {describe_keys(row)}")
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DataError(f"`id` is {quoted(value)}; it must be a text or a whole number")
    text = _text({"id": str(value)}, "id", required=True)
    if len(text) > MAX_ID:
        raise DataError(f"`id` has {len(text):,} characters; the limit is {MAX_ID}")
    return text


def _check_extra(extra: dict[str, object]) -> None:
    """Refuse keys and values that could not be written to a transcript."""
    try:
        json.dumps(extra, ensure_ascii=False, default=_plain).encode()
    except UnicodeEncodeError as error:
        raise DataError("a key or value holds half of a surrogate pair: it is not valid Unicode text") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"the other keys can not be written as JSON: {error}") from error


def _plain(value: object) -> str:
    return f"{len(value)} bytes" if isinstance(value, bytes) else str(value)


def _check_size(size: object, key: str) -> None:
    sides = size if isinstance(size, list) and len(size) == 2 else []
    numbers = [side for side in sides if isinstance(side, int | float) and not isinstance(side, bool)]
    if len(numbers) != 2 or not all(0 < side < MAX_SIDE for side in numbers):
        raise DataError(f"`{key}` is {quoted(size)}; it must be [width, height], two positive numbers")


def _located(row: dict[str, object], images: tuple[str | bytes, ...], limits: ImageSection) -> dict[str, object]:
    """`image_size`, which the gold coordinates refer to: the row's own, else the size of the image file."""
    if row.get("seen_size") is not None:
        _check_size(row["seen_size"], "seen_size")
    number = row.get("answer_image")
    if number is None and len(images) == 1:
        number = 1
    place = number if isinstance(number, int) and not isinstance(number, bool) else 0
    if images and not 1 <= place <= len(images):
        raise DataError(
            f"`answer_image` is {quoted(number)}; it must be the number (1 to {len(images)}) of the image that the "
            "coordinates of the answer refer to"
        )
    size = row.get("image_size")
    if size is None:
        return {"image_size": list(image_size(images[place - 1], limits))} if images else {}
    _check_size(size, "image_size")
    return {"image_size": size}


def _text(row: dict[str, object], key: str, required: bool = False) -> str:
    value = row.get(key)
    if value is None and not required:
        return ""
    if not isinstance(value, str):
        if value is None:
            raise DataError(f"`{key}` is missing; the row has {describe_keys(row)}")
        raise DataError(f"`{key}` is a {type(value).__name__} ({quoted(value)}), not a text")
    if required and not value.strip():
        raise DataError(f"`{key}` is empty")
    if len(value) > MAX_TEXT:
        raise DataError(f"`{key}` has {len(value):,} characters; the limit is {MAX_TEXT:,}")
    if "\x00" in value:
        raise DataError(f"`{key}` holds a NUL character")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise DataError(f"`{key}` holds half of a surrogate pair: it is not valid Unicode text")
    return value


def _texts(row: dict[str, object], key: str) -> tuple[str, ...]:
    value = row.get(key)
    if value is None:
        return ()
    if not isinstance(value, list):
        raise DataError(f"`{key}` is a {type(value).__name__} ({quoted(value)}), not a list of texts")
    return tuple(_text({key: item}, key, required=True) for item in value)


def _pictures(row: dict[str, object]) -> tuple[str | bytes, ...]:
    value = row.get("images")
    if value is None:
        return ()
    if not isinstance(value, list):
        raise DataError(f"`images` is a {type(value).__name__} ({quoted(value)}), not a list of paths")
    return tuple(x if isinstance(x, bytes) else _text({"images": x}, "images", required=True) for x in value)


def _level(value: object) -> float | None:
    if value is None:
        return None
    try:
        level = math.nan if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
    except OverflowError:
        level = math.inf
    if not math.isfinite(level):
        raise DataError(f"`level` is {quoted(value)}; it must be a finite number or null")
    return level


def _check_choices(answer_type: str, answer: str, choices: tuple[str, ...]) -> None:
    if answer_type != "choice":
        return
    if not 2 <= len(choices) <= len(CHOICE_LETTERS):
        raise DataError(f"a choice problem needs 2 to {len(CHOICE_LETTERS)} `choices`, this one has {len(choices)}")
    letters = CHOICE_LETTERS[: len(choices)]
    if len(answer.strip()) != 1 or answer.strip() not in letters:
        raise DataError(f"`answer` is {answer[:40]!r}; with {len(choices)} choices it must be one of {letters}")


def _images(
    names: tuple[str | bytes, ...],
    texts: tuple[str, ...],
    folder: Path,
    modality: Modality,
    max_images: int,
    limits: ImageSection,
) -> tuple[str | bytes, ...]:
    _check_number(len(names), texts, modality, max_images)
    return tuple(_embedded(name, limits) if isinstance(name, bytes) else _image(name, folder, limits) for name in names)


def wrong_modality(problem: Problem, modality: Modality, max_images: int) -> str:
    """Why a checked problem does not fit a phase's modality; empty when it does."""
    try:
        _check_number(len(problem.images), (problem.question, *problem.choices), modality, max_images)
    except DataError as error:
        return str(error)
    return "`caption` is missing" if modality == "caption" and not problem.caption else ""


def _check_number(images: int, texts: tuple[str, ...], modality: Modality, max_images: int) -> None:
    """Compare images, the `<image>` marks of question and choices, and the modality."""
    marks = sum(text.count("<image>") for text in texts)
    if modality == "text":
        if images:
            raise DataError("the row has images, but the phase's modality is 'text'")
        if marks:
            raise DataError("the question has an <image> mark, but the phase's modality is 'text'")
        return
    if not images:
        raise DataError(f"the row has no images, but the phase's modality is {modality!r}")
    if images > max_images:
        raise DataError(f"the row has {images} images; `data.max_images` is {max_images}")
    if marks not in (0, images):
        raise DataError(f"question and choices have {marks} <image> marks for {images} images")


def _embedded(encoded: bytes, limits: ImageSection) -> bytes:
    check_image(encoded, limits)
    return encoded


def _image(name: str, folder: Path, limits: ImageSection) -> str:
    """The absolute path of an image that exists below `folder` and decodes."""
    path = resolve_below(folder, name, "image file")
    stamp = path.stat()
    complaint = _image_complaint(str(path), limits, stamp.st_mtime_ns, stamp.st_size)
    if complaint:
        raise DataError(complaint)
    return str(path)


@functools.lru_cache(maxsize=200_000)
def _image_complaint(path: str, limits: ImageSection, modified: int, size: int) -> str:
    """Decode once per file and version: the same images are read again for every phase that uses them."""
    try:
        check_image(path, limits)
    except DataError as error:
        return str(error)
    return ""
