r"""MathVista testmini (AI4Math/MathVista) and its published normalization.

The published protocol lets GPT extract the answer from the response; here that is done by rule (box, "the answer is",
the last option, number or list). What follows is as published: an option's letter or the nearest option text, an
integer, a rounded decimal, or a list is compared as a string. Lu et al. 2023 (arXiv:2310.02255), `evaluation/`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from rapidfuzz.distance import Levenshtein

from infimmr_jax.data.records import DataError
from infimmr_jax.evaluation.answers import last_list, last_number, last_option_letter, option_letter, stated_answer
from infimmr_jax.evaluation.items import Benchmark, Grade, Item
from infimmr_jax.evaluation.sources import Row, find_files, lettered, letters, picture, read_rows, unique_ids

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


def grade(gold: dict[str, Any], text: str) -> Grade:
    """Extract by rule, normalize as published, compare as strings."""
    extraction = extract(gold, text)
    if extraction is None:
        return Grade(False, None, "no answer found")
    return Grade(normalize(gold, extraction) == gold["answer"], extraction)


def extract(gold: dict[str, Any], text: str) -> str | None:
    """The answer in a response: itself when it is one already, else by rule."""
    text = text.strip()
    choices = gold["choices"]
    if not text:
        return None
    if text in choices:
        return text
    quoted = re.search(r'The answer is "(.*)"\.', text)
    if quoted:
        return quoted[1]
    stated = stated_answer(text)
    if choices:
        names = "".join(letters(len(choices)))
        letter = option_letter(stated, names) if stated is not None else last_option_letter(text, names)
        if letter is None and stated is not None:
            # "no, there are not ..": the option's text begins the statement.
            begun = [choice for choice in choices if re.match(rf"{re.escape(choice)}(?!\w)", stated, re.IGNORECASE)]
            return max(begun, key=len) if begun else stated
        if letter is not None:
            return letter
        named = [choice for choice in choices if choice and re.search(rf"(?<!\w){re.escape(choice)}(?!\w)", text)]
        return max(named, key=text.rfind) if named else None
    if gold["answer_type"] == "list":
        return last_list(stated if stated is not None and "[" in stated else text)
    return last_number(stated) if stated is not None and last_number(stated) is not None else last_number(text)


def normalize(gold: dict[str, Any], extraction: str) -> str | None:
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
        return extraction
    try:
        value = float(extraction)
        return str(int(value)) if kind == "integer" else str(round(value, int(gold["precision"])))
    except (ValueError, OverflowError):
        return None


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
