r"""MathVista testmini (AI4Math/MathVista) and its published normalization.

The published protocol lets GPT extract the answer from the response; here that is done by rule (box, "the answer is",
the last option, number or list; numbers as in `stated_values`). What follows is as published: an option's letter or the
nearest option text, an integer, a rounded decimal, or a list is compared as a string. Lu et al. 2023
(arXiv:2310.02255), `evaluation/`.

On the responses published with it (17 files, most of them prose without a box) the grade differs from the published one
on 110 of 7,667 free-form answers and 1,022 of 8,988 choices, chiefly where GPT read a number word, or found no option
and the option text nearest to its excuse was right by chance.
"""

from __future__ import annotations

import re
from pathlib import Path

from rapidfuzz.distance import Levenshtein

from infimmr_jax.data.markup import last_boxed
from infimmr_jax.data.records import DataError
from infimmr_jax.evaluation.answers import last_option_letter, option_letter, stated_answer
from infimmr_jax.evaluation.items import Benchmark, Grade, Item
from infimmr_jax.evaluation.sources import Row, find_files, lettered, letters, picture, read_rows, unique_ids
from infimmr_jax.evaluation.stated_values import last_value, spaced, written_list, written_number
from infimmr_jax.names import JsonObject

_METADATA = ("source", "category", "task", "context", "grade", "language")


def read(path: Path) -> list[Item]:
    """Read the repository's `testmini.json` with `images/`, or the hub's parquet; rows need an answer."""
    items = []
    patterns = ["testmini.json", "testmini-*.parquet", "testmini.parquet", "annot_testmini.json"]
    for file in find_files(path, patterns, "MathVista"):
        for number, row in enumerate(read_rows(file, ["question", "question_type", "answer_type"]), start=1):
            pid = str(row.get("pid") or row.get("id") or number)
            where = f"pid {pid}"
            answer = row.get("answer")
            if answer in (None, ""):
                raise DataError(f"{file}, {where}: there is no answer; the test split has none, give testmini")
            choices = [str(choice) for choice in row.get("choices") or ()]
            if choices and answer not in choices:
                raise DataError(f"{file}, {where}: the answer {answer!r} is none of the choices")
            metadata = row.get("metadata") or {}
            groups: dict[str, str | tuple[str, ...]] = {
                key: str(metadata[key]) for key in _METADATA if metadata.get(key)
            }
            groups |= {"question_type": row["question_type"], "answer_type": row["answer_type"]}
            if metadata.get("skills"):
                groups["skills"] = tuple(map(str, metadata["skills"]))
            items.append(
                Item(
                    id=pid,
                    prompt=row.get("query") or query(row),
                    question=_with_unit(row),
                    answer=letters(len(choices))[choices.index(answer)] if choices else str(answer),
                    answer_type="choice" if choices else "string" if row["answer_type"] == "list" else "math",
                    choices=tuple(choices),
                    images=(picture(row.get("decoded_image") or row.get("image"), file, where),),
                    gold={
                        "answer": str(answer),
                        "choices": choices,
                        "answer_type": row["answer_type"],
                        "precision": row.get("precision"),
                    },
                    groups=groups,
                )
            )
    unique_ids([item.id for item in items], path)
    return items


def query(row: Row) -> str:
    """The published query of a row: a hint on the form of the answer, the question, the options."""
    kind, precision = row["answer_type"], row.get("precision")
    hints = {
        "integer": "requiring an integer answer and provide the final value, e.g., 1, 2, 3, at the end.",
        "list": "requiring a Python list as an answer and provide the final list, e.g., [1, 2, 3], [1.2, 1.3, 1.4], "
        "at the end.",
        "float": "requiring a floating-point number with "
        + (
            "two decimal places and provide the final value, e.g., 1.23, 1.34, 1.45, at the end."
            if precision == 2
            else "one decimal place and provide the final value, e.g., 1.2, 1.3, 1.4, at the end."
        ),
    }
    hint = "and provide the correct option letter, e.g., A, B, C, D, at the end."
    if row["question_type"] != "multi_choice":
        hint = hints[kind]
    choices = row.get("choices")
    listing = f"\nChoices:\n{lettered([str(choice) for choice in choices])}" if choices else ""
    return f"Hint: Please answer the question {hint}\nQuestion: {_with_unit(row)}{listing}"


def grade(gold: JsonObject, text: str) -> Grade:
    """Extract by rule, normalize as published, compare as strings."""
    extraction = extract(gold, text)
    if extraction is None:
        return Grade(False, None, "no answer found")
    answer = spaced(gold["answer"]) if gold["answer_type"] == "list" else gold["answer"]
    return Grade(normalize(gold, extraction) == answer, extraction)


def extract(gold: JsonObject, text: str) -> str | None:
    """The answer in a response: itself when it is one already, else by rule."""
    text = text.strip()
    choices = gold["choices"]
    if not text:
        return None
    if text in choices:
        return text
    quoted = re.search(r'The answer is "(.*)"\.', text)
    stated = quoted[1] if quoted else stated_answer(text)
    if choices:
        names = "".join(letters(len(choices)))
        letter = option_letter(stated, names) if stated is not None else last_option_letter(text, names)
        if letter is not None:
            return letter
        # "no, there are not ..": the option's text begins the statement.
        begun = _beginning(stated if stated is not None else text, choices)
        if begun is not None or stated is not None:
            return begun or stated
        named = [choice for choice in choices if choice and re.search(rf"(?<!\w){re.escape(choice)}(?!\w)", text)]
        return max(named, key=text.rfind) if named else None
    if gold["answer_type"] == "list":
        return (written_list(stated) if stated is not None else None) or written_list(text)
    integer = gold["answer_type"] == "integer"
    found = written_number(stated if stated is not None else text.rsplit("\n", 1)[-1], integer)
    if found is not None:
        return found
    if last_boxed(text) is not None:
        # A box is the answer even when it is no number: another number of the response would be a guess.
        return stated or None
    found = last_value(stated, integer) if stated is not None else None
    return found if found is not None else last_value(text, integer)


def normalize(gold: JsonObject, extraction: str) -> str | None:
    """The published normalization of an extracted answer; None when it has not the form asked for."""
    choices, kind = gold["choices"], gold["answer_type"]
    if choices:
        extraction = extraction.strip()
        bracketed = re.findall(r"\(([a-zA-Z])\)", extraction)
        letter = bracketed[0].upper() if bracketed else extraction
        names = letters(len(choices))
        if letter in names:
            return choices[names.index(letter)]
        return min(choices, key=lambda choice: Levenshtein.distance(letter, choice))
    if kind == "list":
        return spaced(extraction)
    try:
        value = float(extraction)
        return str(int(value)) if kind == "integer" else str(round(value, int(gold["precision"])))
    except (ValueError, OverflowError):
        return None


def _beginning(text: str, choices: list[str]) -> str | None:
    """The longest option that a text begins with."""
    begun = [choice for choice in choices if choice and re.match(rf"{re.escape(choice)}(?!\w)", text, re.IGNORECASE)]
    return max(begun, key=len) if begun else None


def _with_unit(row: Row) -> str:
    return f"{row['question']} (Unit: {row['unit']})" if row.get("unit") else row["question"]


BENCHMARK = Benchmark(
    name="mathvista",
    title="MathVista (testmini)",
    read=read,
    grade=grade,
    protocol="published normalization after extraction by rule in place of GPT",
    paper=67.2,
    group_keys=("question_type", "answer_type", "category", "task", "context", "grade", "skills", "source", "language"),
)
