r"""Finding the answer in free text by rule, where the published protocol asks a language model to do it."""

from __future__ import annotations

import re

from infimmr_jax.data.markup import last_boxed

_ANNOUNCED = re.compile(
    r"(?:answer(?: to (?:the|this) (?:question|problem))?|(?:correct|best|closest) (?:option|choice)(?: letter)?)"
    r"\s*(?:is|:|should be|would be|=)\s*:?\s*"
    r"(.+?)(?=\.\s|\.?$|\n)|答案(?:为|是)?\s*[:：]?\s*(.+?)(?=[。\n]|$)",
    re.IGNORECASE | re.MULTILINE,
)
_NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|-?\.\d+")


def final_text(response: str) -> str:
    """The text after the last `</think>`; empty when a thinking section was opened and never closed."""
    _, closed, tail = response.rpartition("</think>")
    if closed:
        return tail.strip()
    return "" if "<think>" in response else response.strip()


def stated_answer(text: str) -> str | None:
    r"""The answer a text commits to: the last `\boxed{..}`, else what follows the last "answer is" or "Answer:"."""
    boxed = last_boxed(text)
    if boxed is not None:
        return _bare(boxed)
    announced = [english or chinese for english, chinese in _ANNOUNCED.findall(text.replace("**", ""))]
    return _bare(announced[-1]) or None if announced else None


def option_letter(text: str, letters: str) -> str | None:
    """The option a short answer names: `B`, `(B)`, `B.`, `B: text`, `option B`; None when it names none or several."""
    short = _bare(text)
    match = re.fullmatch(rf"\(?([{letters}])\)?\s*(?:[.:)\-].*)?", short, re.DOTALL)
    if match is None:
        match = re.fullmatch(rf"\(([{letters}])\)\s*.*", short, re.DOTALL)
    if match is None:
        match = re.fullmatch(rf"(?:option|choice)\s*\(?([{letters}])\)?\b.*", short, re.DOTALL | re.IGNORECASE)
    return match[1].upper() if match else None


def last_option_letter(text: str, letters: str) -> str | None:
    """The last letter in brackets in a text, or the letter that is the whole last line."""
    bracketed = re.findall(rf"\(([{letters}])\)", text)
    if bracketed:
        return bracketed[-1]
    last_line = text.strip().rsplit("\n", 1)[-1]
    return option_letter(last_line, letters) if len(last_line) <= 40 else None


def last_number(text: str) -> str | None:
    """The last decimal number of a text, without thousands separators."""
    found = _NUMBER.findall(text)
    return found[-1].replace(",", "") if found else None


def _bare(text: str) -> str:
    r"""Without the wrapping that has no meaning: `$..$`, `\text{..}`, quotes, a full stop."""
    text = text.strip()
    while True:
        peeled = re.sub(r"^\\(?:text|textbf|mathrm|mathbf|rm)\s*\{(.*)\}$", r"\1", text, flags=re.DOTALL)
        peeled = re.sub(r"^(\$\$|\$|\*\*|[`\"'])([^$]*)\1$", r"\2", peeled.strip(), flags=re.DOTALL)
        peeled = re.sub(r"^\\\((.*)\\\)$", r"\1", peeled.strip().removesuffix("."), flags=re.DOTALL).strip()
        if peeled == text:
            return text
        text = peeled
