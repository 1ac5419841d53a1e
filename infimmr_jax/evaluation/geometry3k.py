r"""Geometry3K test (601 problems): the original folders with four options, or the hub's open-ended parquet.

The original set is scored by option. hiyouga/geometry3k asks for the value; it is graded as verl and EasyR1 do, by the
MATH-500 grader on the last box. Lu et al. 2021 (arXiv:2105.04165).
"""

from __future__ import annotations

import json
from pathlib import Path

from infimmr_jax.data.records import DataError
from infimmr_jax.evaluation import math500
from infimmr_jax.evaluation.answers import last_option_letter, option_letter, stated_answer
from infimmr_jax.evaluation.items import Benchmark, Grade, Item
from infimmr_jax.evaluation.sources import find_files, lettered, letters, picture, read_rows, unique_ids
from infimmr_jax.names import JsonObject

INSTRUCTION = (
    "You FIRST think about the reasoning process as an internal monologue and then provide the final answer. The "
    "reasoning process MUST BE enclosed within <think> </think> tags. The final answer MUST BE put in \\boxed{}."
)


def read(path: Path) -> list[Item]:
    """Read the original `test/<id>/data.json` folders, or the hub's `test-*.parquet`."""
    if path.is_dir() and (folders := _folders(path)):
        return [_from_folder(folder) for folder in folders]
    items = []
    for file in find_files(path, ["test-*.parquet", "test.parquet"], "Geometry3K"):
        for number, row in enumerate(read_rows(file, ["images", "problem", "answer"]), start=1):
            where = f"row {number}"
            question, answer = str(row["problem"]), str(row["answer"])
            items.append(
                Item(
                    id=str(row["id"]) if row.get("id") is not None else f"row-{number}",
                    prompt=f"{question}\n\n{INSTRUCTION}",
                    question=question,
                    answer=answer,
                    answer_type="math",
                    images=tuple(picture(image, file, where) for image in row["images"]),
                    gold={"answer": answer, "choices": []},
                )
            )
    unique_ids([item.id for item in items], path)
    return items


def grade(gold: JsonObject, text: str) -> Grade:
    """Grade an option's letter (or its value) where there are options, else the value."""
    if not gold["choices"]:
        return math500.grade(gold, text)
    names = "".join(letters(len(gold["choices"])))
    stated = stated_answer(text)
    letter = option_letter(stated, names) if stated is not None else last_option_letter(text, names)
    if letter is not None:
        return Grade(letter == gold["answer"], letter)
    if stated is None:
        return Grade(False, None, "no option named")
    return Grade(math500.equal(stated, gold["choices"][names.index(gold["answer"])]), stated)


def _folders(path: Path) -> list[Path]:
    root = path / "test" if (path / "test").is_dir() else path
    found = [folder for folder in root.iterdir() if (folder / "data.json").is_file()]
    return sorted(found, key=lambda folder: (len(folder.name), folder.name))


def _from_folder(folder: Path) -> Item:
    file = folder / "data.json"
    try:
        row = json.loads(file.read_text(encoding="utf-8"))
        choices = [str(choice) for choice in row["choices"]]
        answer, text = row["answer"], row["problem_text"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} is no Geometry3K record: {error}") from error
    names = letters(len(choices))
    if answer not in names:
        raise DataError(f"{file}: the answer {answer!r} is not a letter of {len(choices)} choices")
    kinds = row.get("problem_type_goal") or []
    return Item(
        id=folder.name,
        prompt=f"{text}\n{lettered(choices)}\n\n{INSTRUCTION}",
        question=text,
        answer=answer,
        answer_type="choice",
        choices=tuple(choices),
        images=(picture("img_diagram.png", file, "the diagram"),),
        gold={"answer": answer, "choices": choices},
        groups={"goal": tuple(kinds) if isinstance(kinds, list) else str(kinds)} if kinds else {},
    )


BENCHMARK = Benchmark(
    name="geometry3k",
    title="Geometry3K (test)",
    read=read,
    grade=grade,
    protocol="option letter or value (original folders); MATH-500 grader on the last box (hub parquet)",
    group_keys=("goal",),
)
