"""Options of published questions: in a column or inside the text, in any usual dress, and the one an answer names."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence

from infimmr_jax.data.records import DataError
from infimmr_jax.data.rows import MAX_TEXT, quoted
from infimmr_jax.names import CHOICE_LETTERS

# "(A) ..", or "A. ..", "A: ..", "A) .." at the beginning of a line or after a space.
_MARKERS = (
    re.compile(r"(?:(?<=\s)|^)\(([A-J])\)[ \t]*", re.MULTILINE),
    re.compile(r"(?:(?<=\s)|^)([A-J])[.:)][ \t]*(?=\S)", re.MULTILINE),
    re.compile(r"(?:(?<=\s)|^)\(([a-j])\)[ \t]*", re.MULTILINE),
    re.compile(r"^([a-j])[.:)][ \t]*(?=\S)", re.MULTILINE),
)
_HEADING = re.compile(r"\b(?:choices|options)\s?:?$", re.IGNORECASE)
_LABEL = re.compile(r"\s*(?:\(([A-Ja-j])\)|([A-Ja-j])[.:)])\s*(?=\S)")
_LETTER = re.compile(r"(?:(?:option|choice)\s)?\(?([A-Ja-j])[).:]?", re.IGNORECASE)
_LETTER_AND_TEXT = re.compile(r"(?:\(([A-Ja-j])\)|([A-Ja-j])[.:)])\s*(\S.*)", re.DOTALL)
_TEXT_KEYS, _LETTER_KEYS = ("text", "value", "content"), ("label", "key", "letter", "id")


class CountedFromOneError(DataError):
    """An answer that names an option by its place counted from 1, where places are read from 0."""


def split_options(question: str) -> tuple[str, tuple[str, ...]]:
    """Return the question without its options, and their texts in letter order; no options where there are none.

    Options count only when their letters run from A without a gap, all in the same form, the last run of the text,
    and none is empty. What stands in lines behind options of a line each goes to the end of the question.
    """
    for marker in _MARKERS:
        marks = list(marker.finditer(question))
        starts = [n for n, match in enumerate(marks) if match[1] in "Aa"]
        if not starts:
            continue
        run = marks[starts[-1] :]
        letters = "".join(match[1].upper() for match in run)
        if len(run) < 2 or letters != CHOICE_LETTERS[: len(run)]:
            continue
        ends = [match.start() for match in run[1:]] + [len(question)]
        options = tuple(
            question[match.end() : end].strip().rstrip(";,").strip() for match, end in zip(run, ends, strict=True)
        )
        if all(options):
            stem = _HEADING.sub("", question[: run[0].start()].rstrip()).strip()
            last, line_end, behind = options[-1].partition("\n")
            # Behind options of a line each stands an instruction, which is no part of the last one.
            if line_end and not any("\n" in option for option in options[:-1]):
                return f"{stem}\n{behind.strip()}".strip(), (*options[:-1], last.strip().rstrip(";,").strip())
            return stem, options
    return question, ()


def read_options(value: object) -> tuple[str, ...]:
    """Return the texts of a column of options: a list, a list written as text, letters with texts, or objects of both.

    Labels "A. ", "(A) " are taken off where every option has its own. Raises DataError, quoting it, for what is none of
    these.
    """
    if isinstance(value, str):
        stem, inside = split_options(value)
        value = list(inside) if inside and not stem else _literal(value)
    if isinstance(value, dict):
        value = _of_mapping({key: item for key, item in value.items() if item is not None})
    if not isinstance(value, list):
        raise DataError(f"the options are {quoted(value)}, not a list of texts")
    if len(value) > len(CHOICE_LETTERS):
        raise DataError(f"the row has {len(value)} options; more than {len(CHOICE_LETTERS)} have no letters here")
    if all(isinstance(item, dict) for item in value):
        value = [_of_object(item, place) for place, item in enumerate(value)]
    options = [_option(item) for item in value]
    labels = [_LABEL.match(option) for option in options]
    letters = "".join((label[1] or label[2]).upper() for label in labels if label)
    if len(options) > 1 and letters == CHOICE_LETTERS[: len(options)]:
        options = [option[label.end() :].rstrip() for option, label in zip(options, labels, strict=True) if label]
    return tuple(options)


def letter_columns(record: Mapping[str, object]) -> tuple[str, ...]:
    """Return the options of a table that has a column a letter (A, B, C, ..); none where it has no A and B."""
    columns = [record.get(letter) for letter in CHOICE_LETTERS]
    given = ["" if item is None or item != item else _option(item).strip() for item in columns]  # NaN is not itself
    used = [place for place, option in enumerate(given) if option]
    if used[:2] != [0, 1]:
        return ()
    if used != list(range(len(used))):
        raise DataError(f"the columns of options {', '.join(CHOICE_LETTERS[place] for place in used)} have a gap")
    return tuple(given[: len(used)])


def option_letter(answer: object, options: Sequence[str]) -> tuple[str, bool]:
    """Return the letter of the option that an answer names, and whether it named it by its place, counted from 0.

    An answer is a letter (`B`, `(b)`, `B.`, `Option B`), a letter with its option's text (`B. 20`), the text alone, or
    a place. Raises DataError when it is none of these, or may mean two options.
    """
    text = str(answer).strip()
    folded = [_folded(option) for option in options]
    by_text = [place for place, option in enumerate(options) if option.strip() == text]
    by_text = by_text or [place for place, option in enumerate(folded) if option == _folded(text)]
    named = _LETTER.fullmatch(text)
    by_letter = [place for place in [_place(named[1])] if place < len(options)] if named else []
    place = int(text) if re.fullmatch(r"\d{1,2}", text) else len(options)
    by_place = [place] if place < len(options) else []
    said = f"`answer` is {quoted(answer)}"
    possible = set(by_text) | set(by_letter) | set(by_place)
    if len(possible) > 1:
        meanings = ", ".join(f"{CHOICE_LETTERS[n]} ({options[n][:20]!r})" for n in sorted(possible))
        raise DataError(f"{said}, which may mean the options {meanings}; give the letter")
    if possible:
        return CHOICE_LETTERS[possible.pop()], not by_text and not by_letter
    both = _LETTER_AND_TEXT.fullmatch(text)
    if both:
        place = _place(both[1] or both[2])
        if place < len(options) and folded[place] == _folded(both[3]):
            return CHOICE_LETTERS[place], False
        if place < len(options):
            raise DataError(f"{said}, but option {CHOICE_LETTERS[place]} is {options[place][:40]!r}")
    if text == str(len(options)):
        raise CountedFromOneError(
            f"{said}, the place of one of {len(options)} options if they count from 1; give the letter"
        )
    listed = ", ".join(option[:20] for option in options[:10])
    raise DataError(f"{said}, neither a letter nor the text of one of {len(options)} options ({listed})")


def is_letter(answer: str) -> bool:
    """Tell whether an answer is a letter of an option, in any dress, perhaps with the option's text behind it."""
    return bool(_LETTER.fullmatch(answer) or _LETTER_AND_TEXT.fullmatch(answer))


def _place(letter: str) -> int:
    return CHOICE_LETTERS.index(letter.upper())


def _folded(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".")


def _literal(text: str) -> object:
    """The list or object that a text writes in JSON or Python; the text itself where it writes none."""
    if len(text) > MAX_TEXT or text.strip()[:1] not in ("[", "{"):
        return text
    try:
        return ast.literal_eval(text.strip())
    # Deep nesting raises one of the last three, by version.
    except (ValueError, SyntaxError, MemoryError, RecursionError, IndexError) as error:
        raise DataError(f"the options {quoted(text)} can not be read as a list: {type(error).__name__}") from error


def _of_mapping(value: dict[object, object]) -> object:
    texts, labels = value.get("text"), value.get("label")
    if isinstance(texts, list) and isinstance(labels, list) and len(texts) == len(labels) and len(value) == 2:
        return [{"label": label, "text": text} for label, text in zip(labels, texts, strict=True)]
    letters = "".join(str(key).strip().upper() for key in value)
    if sorted(letters) != list(CHOICE_LETTERS[: len(value)]):
        raise DataError(f"the options have the keys {quoted(list(value))}, not the letters from A without a gap")
    return [item for _, item in sorted(value.items(), key=lambda pair: str(pair[0]).strip().upper())]


def _of_object(item: dict[object, object], place: int) -> object:
    given = {key: value for key, value in item.items() if value is not None}
    texts, letters = [k for k in given if k in _TEXT_KEYS], [k for k in given if k in _LETTER_KEYS]
    if len(texts) != 1 or len(letters) > 1 or len(given) != len(texts) + len(letters):
        raise DataError(f"the option {quoted(item)} is neither a text nor an object with a label and a text")
    label = str(given[letters[0]]).strip().strip("().").upper() if letters else ""
    if label not in ("", CHOICE_LETTERS[place : place + 1], str(place + 1)):
        raise DataError(f"option {place + 1} has the label {quoted(label)}; labels must run from A without a gap")
    return given[texts[0]]


def _option(item: object) -> str:
    if isinstance(item, bool) or not isinstance(item, str | int | float):
        raise DataError(f"the option {quoted(item)} is not a text")
    return str(item)


__all__ = ["is_letter", "letter_columns", "option_letter", "read_options", "split_options"]
