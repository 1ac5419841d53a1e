r"""Find the answer a response commits to.

Only text after the last `</think>` is looked at; a thinking section that is opened and never closed holds no answer.
Inside that text an answer is what stands in `<answer>..</answer>` or in the last balanced `\boxed{..}`; free text is
never searched for numbers. A response that commits to two different answers commits to none.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections import Counter

from infimmr_jax.data.markup import BOX, boxes, fold
from infimmr_jax.rewards.format import FORMATS
from infimmr_jax.rewards.text import MAX_ANSWER, MAX_NESTING, MAX_RESPONSE, nesting, unwrap


@dataclasses.dataclass(frozen=True)
class Extraction:
    """The answer text (None when there is none) and the rule that found it, or why nothing was found."""

    answer: str | None
    rule: str


MAXBOXES = 32
_ANSWER = re.compile(r"<answer>|</answer>")
_THINK = re.compile(r"<think>|</think>")
_WORD = re.compile(r"[A-Za-z']+")
# Words that join alternatives or merely announce one more answer: between two boxes they are no correction.
_STOCK_WORDS = (
    "a also alternatively an and answer answers be could either final finally hence is it its maybe might or perhaps "
    "possible possibly result so solution the then therefore this thus which"
)
_STOCK = frozenset(_STOCK_WORDS.split())


def _same(first: str, second: str) -> bool:
    if first == second or max(len(first), len(second)) > MAX_ANSWER:
        return first == second
    return "".join(unwrap(fold(first)).split()) == "".join(unwrap(fold(second)).split())


def _is_correction(between: str) -> bool:
    """Whether the text between two different boxes argues (three words beyond the stock ones), not just lists."""
    return sum(word.lower() not in _STOCK for word in _WORD.findall(between)) >= 3


def _from_boxes(text: str) -> Extraction | None:
    found = boxes(text)
    if not found:
        return None
    if len(found) > MAXBOXES:
        return Extraction(None, "too many boxes")
    for (_, end, first), (start, _, second) in itertools.pairwise(found):
        if not _same(first, second) and not _is_correction(text[end:start]):
            return Extraction(None, "contradictory boxes")
    content = found[-1][2]
    if BOX.search(content):
        inner = boxes(content)
        if len(inner) != 1 or inner[0][:2] != (0, len(content)) or BOX.search(inner[0][2]):
            return Extraction(None, "a box inside a box")
        content = inner[0][2]
    return Extraction(content, "last box" if len(found) > 1 else "box")


def _from_tags(text: str) -> Extraction | None:
    marks = list(_ANSWER.finditer(text))
    if not marks:
        return None
    if [mark.group() for mark in marks] != ["<answer>", "</answer>"] * (len(marks) // 2):
        return Extraction(None, "unbalanced <answer> tags")
    contents = [text[marks[i].end() : marks[i + 1].start()].strip() for i in range(0, len(marks), 2)]
    if any(not _same(contents[0], content) for content in contents[1:]):
        return Extraction(None, "contradictory <answer> tags")
    return _from_boxes(contents[0]) or Extraction(contents[0], "<answer>")


def answer_part(response: str) -> str | None:
    """The text after the last `</think>`; all of it when there is no thinking; None when thinking does not end."""
    marks = [(mark.group(), mark.end()) for mark in _THINK.finditer(response)]
    if not marks:
        return response
    return response[marks[-1][1] :] if marks[-1][0] == "</think>" else None


def extract(response: str, response_format: str = "think_boxed") -> Extraction:
    """The answer a response commits to under a response format; see the module's rules.

    Format `plain` (the whole response is the answer) also takes a response without any marks.
    """
    if response_format not in FORMATS:
        raise ValueError(f"response format {response_format!r} is not known; known: {', '.join(FORMATS)}")
    if len(response) > MAX_RESPONSE:
        return Extraction(None, f"longer than {MAX_RESPONSE} characters")
    part = answer_part(response)
    if part is None:
        return Extraction(None, "thinking does not end")
    tagged = _from_tags(part)
    found = tagged or _from_boxes(part)
    if tagged and tagged.answer is not None and tagged.rule == "<answer>":
        outside = _from_boxes(_outside_tags(part))
        if outside and (outside.answer is None or not _same(outside.answer, tagged.answer)):
            found = Extraction(None, "a box contradicts <answer>")
    if found is None and response_format == "plain":
        found = Extraction(part.strip(), "whole response")
    if found is None:
        return Extraction(None, "no answer marked")
    if found.answer is None:
        return found
    if not found.answer:
        return Extraction(None, "empty answer")
    if len(found.answer) > MAX_ANSWER:
        return Extraction(None, f"answer longer than {MAX_ANSWER} characters")
    if nesting(found.answer) > MAX_NESTING:
        return Extraction(None, f"answer nested deeper than {MAX_NESTING}")
    return found


def _outside_tags(text: str) -> str:
    marks = list(_ANSWER.finditer(text))
    return text[: marks[0].start()] + text[marks[-1].end() :]


def safe_extract(text: str, response_format: str, counters: Counter[str] | None = None) -> Extraction:
    """Extract an answer; whatever a hostile response provokes is "no answer", with a reason and a count of crashes."""
    try:
        return extract(text, response_format)
    except Exception as error:
        if counters is not None:
            counters["crashes"] += 1
        return Extraction(None, f"crash: {type(error).__name__}")
