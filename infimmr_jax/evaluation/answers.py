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
# "B is the correct answer."
_CONFIRMED = re.compile(
    r"(?<![A-Za-z])\(?([A-J])\)?\s+is\s+(?:the\s+)?(?:correct|right|best)(?:\s+(?:answer|option|choice))?(?![a-z])"
)
# What follows an announced answer without being part of it.
_CLAUSE = re.compile(
    r"(?:\s*,)?\s+(?:because|since|due to|given that)\b.*$"
    r"|\s*,\s*(?:as|so|which|where|in total|altogether|in all|that is|and so|based on)\b.*$",
    re.IGNORECASE | re.DOTALL,
)
_NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|-?\.\d+")


def final_text(response: str) -> str:
    """The text after the last `</think>`; empty when a thinking section was opened and never closed."""
    _, closed, tail = response.rpartition("</think>")
    if closed:
        return tail.strip()
    return "" if "<think>" in response else response.strip()


def stated_answer(text: str) -> str | None:
    r"""The answer a text commits to: the last `\boxed{..}`, else the last announced one, without a clause behind it.

    Announced is what follows "answer is" or "Answer:", and a letter that "is the correct answer".
    """
    boxed = last_boxed(text)
    if boxed is not None:
        return _bare(boxed)
    plain = text.replace("**", "")
    announced = [(match.start(), match[1] or match[2]) for match in _ANNOUNCED.finditer(plain)]
    announced += [(match.start(), match[1]) for match in _CONFIRMED.finditer(plain)]
    return _bare(_CLAUSE.sub("", max(announced)[1])) or None if announced else None


def option_letter(text: str, letters: str) -> str | None:
    """The option a short answer names: `B`, `(B)`, `B.`, `B: text`, `option B`; None when it names none or several."""
    short = _bare(text)
    forms = (
        rf"\(?([{letters}])\)?\s*(?P<rest>(?:[.:)\-].*)?)",
        rf"\(([{letters}])\)\s*(?P<rest>.*)",
        rf"([{letters}])\s+(?P<rest>(?:because|since)\b.*)",
        rf"(?i:(?:option|choice)\s*\(?([{letters}])\)?)(?P<rest>(?!\w).*)",
    )
    for form in forms:
        match = re.fullmatch(form, short, re.DOTALL)
        if match is not None:
            letter = match[1].upper()
            return None if _names_another(match["rest"], letter, letters) else letter
    return None


def option_letters(text: str) -> frozenset[str]:
    """All options a short answer names, one after the other (`A, C`, `(A)` and `(C)` on lines); empty for any other."""
    parts = [part for part in re.split(r"[\s,;/&]+|\band\b", _bare(text)) if part]
    matches = [re.fullmatch(r"\(?([A-J])\)?[.:]?", part) for part in parts]
    return frozenset() if None in matches else frozenset(match[1] for match in matches if match)


def last_option_letter(text: str, letters: str) -> str | None:
    """The last letter in brackets in a text, or the letter that is the whole last line; None for one of a row."""
    bracketed = list(re.finditer(rf"\(([{letters}])\)", text))
    if len(bracketed) > 1:
        before, last = bracketed[-2:]
        if before[1] != last[1] and re.fullmatch(r"[\s,;/&]*(?:and|or)?\s*", text[before.end() : last.start()]):
            return None
    if bracketed:
        return bracketed[-1][1]
    last_line = text.strip().rsplit("\n", 1)[-1]
    return option_letter(last_line, letters) if len(last_line) <= 40 else None


def _names_another(rest: str, letter: str, letters: str) -> bool:
    """Whether what stands behind an option's letter is or holds another option: `(A)(B)`, `A, B`, `A) or (C)`."""
    others = re.findall(rf"\(([{letters}])\)", rest)
    joined = re.match(rf"[\s,;/&.:()\-]*(?:and|or)?\s*\(?([{letters}])\)?\s*(?:$|[,;/&(]|and\b|or\b)", rest)
    return any(other != letter for other in [*others, *(joined[1] if joined else "")])


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
