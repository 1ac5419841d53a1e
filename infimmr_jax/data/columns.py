"""Values in the columns of other people's rows: texts, golds inside worked solutions, levels, typed answers."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from decimal import Decimal

from infimmr_jax.data.markup import last_boxed
from infimmr_jax.data.question_options import is_letter, option_letter, split_options
from infimmr_jax.data.raw_records import Record
from infimmr_jax.data.records import DataError
from infimmr_jax.data.rows import MAX_TEXT, describe_keys, quoted
from infimmr_jax.names import ANSWER_TYPES

# Keys of a converted row that its reader takes out again: what to say about it, and whether its answer was a place.
NOTES, BY_PLACE = "_notes", "_by_place"
_TAGS = re.compile(r"<answer>|</answer>")
_WORDS = re.compile(r"[^\W\d_]{2,}(?:[ ,.'’-]+[^\W\d_]+)*\.?")


def text_of(record: Record, key: str) -> str:
    """Return a column's text; raises DataError where it is missing, no text, or above the length limit."""
    value = record.get(key)
    if value is None:
        raise DataError(f"`{key}` is missing; the row has {describe_keys(record)}")
    if not isinstance(value, str):
        raise DataError(f"`{key}` is a {type(value).__name__} ({quoted(value)}), not a text")
    check_length(value, key)
    return value


def check_length(text: str, key: str) -> None:
    """Raise DataError for a text that no row may hold, before anything is looked for in it."""
    if len(text) > MAX_TEXT:
        raise DataError(f"`{key}` has {len(text):,} characters; the limit is {MAX_TEXT:,}")


def gold_in(text: str, key: str) -> str | None:
    r"""Return the answer that a worked solution commits to, None where it marks none.

    Only what follows `</think>` counts: the content of its `<answer>` tags (a box inside them is taken off), else its
    last `\boxed{..}`. Raises DataError when thinking or a tag does not end, or when tags hold different answers.
    """
    check_length(text, key)
    text = text.rpartition("</think>")[2]
    if "<think>" in text:
        raise DataError(f"`{key}` holds thinking that does not end: {quoted(text)}")
    marks = list(_TAGS.finditer(text))
    if not marks:
        return last_boxed(text)
    if [mark[0] for mark in marks] != ["<answer>", "</answer>"] * (len(marks) // 2):
        raise DataError(f"`{key}` has <answer> tags that do not match: {quoted(text)}")
    contents = [text[marks[n].end() : marks[n + 1].start()].strip() for n in range(0, len(marks), 2)]
    golds = list(dict.fromkeys(content if (inner := last_boxed(content)) is None else inner for content in contents))
    if len(golds) > 1:
        raise DataError(f"`{key}` holds {len(golds)} different answers: {', '.join(map(quoted, golds[:3]))}")
    return golds[0]


def after_thinking(text: str) -> str:
    """Return what an answer says after `</think>`, without `<answer>` tags."""
    return _TAGS.sub("", text.rpartition("</think>")[2]).strip()


def reasoning_in(text: str) -> str | None:
    """Return the worked solution without tags: what `<think>` holds, or the text where it has no tags."""
    opening, closing = text.find("<think>"), text.rfind("</think>")
    if 0 <= opening < closing:
        return text[opening + len("<think>") : closing].strip() or None
    return None if opening >= 0 or closing >= 0 or _TAGS.search(text) else text


def plain_answer(value: object, key: str) -> str:
    """Return a gold answer as text: a text (its marked part), a number, or a list of one of them.

    Raises DataError, quoting it, for anything else.
    """
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str):
        gold = gold_in(value, key)
        return after_thinking(value) if gold is None else gold.strip()
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(_float(value)):
        return f"{Decimal(repr(value)):f}"
    several = "; several values need an `answer_type` of list or set" if isinstance(value, list) and value else ""
    raise DataError(f"`{key}` is {quoted(value)}, not one text or number{several}")


def typed_answer(question: str, answer: str, choices: Sequence[str] = (), answer_type: str | None = None) -> Record:
    """Return question, answer, type and choices; options inside a question are cut out when the answer is a letter."""
    if not choices and answer_type in (None, "choice") and is_letter(answer):
        question, choices = split_options(question)
    if choices:
        letter, by_place = option_letter(answer, choices)
        row: Record = {"question": question, "answer": letter, "answer_type": "choice", "choices": list(choices)}
        return row | ({BY_PLACE: True} if by_place else {})
    kind = answer_type or ("string" if _WORDS.fullmatch(answer) or re.fullmatch(r"\(?[A-J][).]?", answer) else "math")
    return {"question": question, "answer": answer, "answer_type": kind}


def known_type(value: object) -> str | None:
    """Return a column's `answer_type` where it is one of ours."""
    return value if isinstance(value, str) and value in ANSWER_TYPES else None


def level_of(value: object) -> float | None:
    """Return a level: a finite number, or the first number of a text ("Level 4"); None where there is none."""
    if isinstance(value, str):
        digits = re.search(r"(?<![\d.])\d{1,9}(?:\.\d{1,9})?(?![\d.]*\d)", value[:40])
        value = float(digits[0]) if digits else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(_float(value)):
        return None
    return _float(value)


def as_list(value: object) -> list[object]:
    """Return a list as it is, nothing as no items, anything else as its only item."""
    return value if isinstance(value, list) else [] if value is None else [value]


def first_text(value: object) -> str | None:
    """Return a text, or the first item of a list where that is one."""
    if isinstance(value, list):
        value = value[0] if value else None
    return value if isinstance(value, str) else None


def first_given(record: Record, keys: Sequence[str]) -> tuple[str, object] | None:
    """Return the first of some columns that holds a value, with its name."""
    return next(((key, record[key]) for key in keys if record.get(key) is not None), None)


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


__all__ = [
    "BY_PLACE",
    "NOTES",
    "after_thinking",
    "as_list",
    "check_length",
    "first_given",
    "first_text",
    "gold_in",
    "known_type",
    "level_of",
    "plain_answer",
    "reasoning_in",
    "text_of",
    "typed_answer",
]
