r"""Response formats as exact grammars.

A format is a sequence of tagged sections and a tail. A response matches when, apart from white space, it is exactly
these sections in this order, each tag once, every section non-empty and well formed, and the tail as required:

    tail "boxed"   free text that holds exactly one `\boxed{..}`, balanced and not empty
    tail "empty"   nothing
    tail "text"    any non-empty text

No section and no tail may hold a structural tag of any format, or a chat-control token.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable

from infimmr_jax.rewards.text import MAX_NESTING, MAX_RESPONSE, matching_braces, nesting


@dataclasses.dataclass(frozen=True)
class Grammar:
    """Sections in order as (tag, kind), then the tail; `kind` names a check in `_CONTENT`."""

    sections: tuple[tuple[str, str], ...]
    tail: str

    @property
    def thinks(self) -> bool:
        """Whether the format has a thinking section, so that an answer can only come after it."""
        return any(tag == "think" for tag, _ in self.sections)


FORMATS: dict[str, Grammar] = {
    "think_boxed": Grammar((("think", "text"),), "boxed"),
    "boxed": Grammar((), "boxed"),
    "think_answer": Grammar((("think", "text"), ("answer", "text")), "empty"),
    "think_answer_boxed": Grammar((("think", "text"), ("answer", "boxed")), "empty"),
    "observe_think_answer": Grammar((("observe", "text"), ("think", "text"), ("answer", "text")), "empty"),
    "info_think_answer": Grammar((("info", "text"), ("think", "text"), ("answer", "text")), "empty"),
    "context_think_answer": Grammar((("context", "text"), ("think", "text"), ("answer", "text")), "empty"),
    "caption_bbox_answer": Grammar((("caption", "text"), ("bbox", "boxes"), ("answer", "text")), "empty"),
    "bbox_think_answer": Grammar((("bbox", "boxes"), ("think", "text"), ("answer", "text")), "empty"),
    "summary_caption_think_answer": Grammar(
        (("summary", "text"), ("caption", "text"), ("think", "text"), ("answer", "text")), "empty"
    ),
    "think_action": Grammar((("think", "text"), ("answer", "action")), "empty"),
    "answer": Grammar((("answer", "text"),), "empty"),
    "plain": Grammar((), "text"),
}
TAGS = tuple(sorted({tag for grammar in FORMATS.values() for tag, _ in grammar.sections}))

_TAG = re.compile(rf"</?(?:{'|'.join(TAGS)})>", re.IGNORECASE)
_CONTROL = re.compile(r"<\|[a-z_]{1,40}\|>")
_BOX = re.compile(r"\\boxed\b")
_SUBSTANCE = re.compile(r"[^\W_]")
_BRACKETED = re.compile(r"[^\s\[\]{}(),:'\"0-9.+\-A-Za-z]")


def one_box(text: str) -> str | None:
    r"""Content of the only `\boxed{..}` in a text; None when there is none, more than one, or it is open or empty."""
    found = [match.end() for match in _BOX.finditer(text)]
    if len(found) != 1:
        return None
    start = len(text) - len(text[found[0] :].lstrip())
    end = matching_braces(text).get(start) if text.startswith("{", start) else None
    content = text[start + 1 : end].strip() if end is not None else ""
    return content if content and nesting(content) <= MAX_NESTING else None


def _numbers_only(text: str) -> bool:
    return bool(re.search(r"[0-9]", text)) and not _BRACKETED.search(text) and nesting(text) <= 4


def _action(text: str) -> bool:
    if nesting(text) > 8:
        return False
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return False
    steps = value if isinstance(value, list) else [value]
    return bool(steps) and all(isinstance(step, dict) and isinstance(step.get("action"), str) for step in steps)


_CONTENT: dict[str, Callable[[str], bool]] = {
    "text": lambda text: bool(_SUBSTANCE.search(text)),
    "boxed": lambda text: one_box(text) is not None,
    "boxes": _numbers_only,
    "action": _action,
    "empty": lambda text: not text.strip(),
}


def format_error(response: str, response_format: str) -> str | None:
    """Why a response does not match a format (the first rule it breaks), or None when it does."""
    grammar = FORMATS[response_format]
    if len(response) > MAX_RESPONSE:
        return f"longer than {MAX_RESPONSE} characters"
    if _CONTROL.search(response):
        return "holds a chat-control token"
    wanted = [mark for tag, _ in grammar.sections for mark in (f"<{tag}>", f"</{tag}>")]
    marks = list(_TAG.finditer(response))
    found = [mark.group() for mark in marks]
    if found != wanted:
        missing = [mark for mark in wanted if mark not in found]
        return f"{missing[0]} is missing" if missing else "tags are repeated, out of order or foreign to the format"
    position = 0
    for number, (tag, kind) in enumerate(grammar.sections):
        opening, closing = marks[2 * number], marks[2 * number + 1]
        if response[position : opening.start()].strip():
            return f"text stands before <{tag}>"
        if not _CONTENT[kind](response[opening.end() : closing.start()]):
            return f"<{tag}> is empty" if kind == "text" else f"<{tag}> does not hold {kind}"
        position = closing.end()
    if not _CONTENT[grammar.tail](response[position:]):
        return {
            "boxed": r"the answer part does not hold exactly one balanced \boxed{}",
            "empty": "text stands after the last section",
            "text": "the response is empty",
        }[grammar.tail]
    return None


__all__ = ["FORMATS", "TAGS", "Grammar", "format_error", "one_box"]
