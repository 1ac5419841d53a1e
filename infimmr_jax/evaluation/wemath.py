r"""We-Math testmini (We-Math/We-Math): 1,740 questions that make 525 composite problems with their sub-problems.

Besides the accuracy by number of steps, the four-dimensional metrics say whether a composite problem failed for want
of knowledge (IK: a sub-problem and the whole are wrong), of generalization (IG: only the whole is wrong), was mastered
(CM), or was right although a sub-problem was wrong (RM: rote). Qiao et al. 2024 (arXiv:2407.01284), `evaluation/`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from infimmr_jax.data.markup import last_boxed
from infimmr_jax.data.records import DataError
from infimmr_jax.evaluation.answers import option_letter
from infimmr_jax.evaluation.items import Benchmark, Grade, Item
from infimmr_jax.evaluation.sources import find_files, picture, read_rows, unique_ids
from infimmr_jax.names import JsonObject

PROMPT = (
    "Now, we require you to solve a multiple-choice math question. Please briefly describe your thought process and "
    "provide the final answer(option).\nQuestion: {question}\nOption: {option}\nRegarding the format, please answer "
    "following the template below, and be sure to include two <> symbols:\n"
    "<Thought process>: <<your thought process>> <Answer>: <<your option>>"
)
_LETTERS = "ABCDEFGH"
_REQUIRED = ["ID", "question", "option", "answer", "key", "image_path"]


def read(path: Path) -> list[Item]:
    """Read `testmini.json` with the unpacked images, or a parquet file with the same columns."""
    items = []
    for file in find_files(path, ["testmini.json", "testmini*.parquet"], "We-Math"):
        for row in read_rows(file, _REQUIRED):
            where = f"ID {row['ID']}, key {row['key']}"
            option, answer = str(row["option"]), str(row["answer"]).strip()
            if re.fullmatch("[A-H]", answer) is None:
                raise DataError(f"{file}, {where}: the answer {answer!r} is not a letter")
            steps, _, part = str(row["key"]).partition("_")
            items.append(
                Item(
                    id=f"{row['ID']}/{row['key']}",
                    prompt=PROMPT.format(question=row["question"], option=option),
                    question=f"{row['question']}\n{option}",
                    answer=answer,
                    answer_type="string",
                    images=(picture(row["image_path"], file, where),),
                    gold={"answer": answer},
                    groups={
                        "steps": f"{steps.removesuffix('steps')} steps" if part == "multi" else "1 step",
                        "composite": str(row["ID"]),
                        "part": part,
                    },
                )
            )
    unique_ids([item.id for item in items], path)
    return items


def grade(gold: JsonObject, text: str) -> Grade:
    """The letter that begins the text after the last "Answer" (or all of it), or the letter of a box in it."""
    tail = text.rpartition("Answer")[2]
    boxed = last_boxed(tail)
    short = re.sub(r"[><:.]", "", tail.strip()).strip()
    letter = short[0] if short and short[0] in _LETTERS else None
    # The published rule knows no box; a policy that was trained to use one is not asked for the word "Answer".
    letter = option_letter(boxed, _LETTERS) if boxed is not None else letter
    return Grade(letter == gold["answer"], letter, "" if letter else "no option named")


def summary(items: Sequence[Item], scores: Sequence[float]) -> dict[str, float]:
    """IK, IG, CM and RM, strict and loose, and both average scores, over the composite problems of the items.

    `scores` are shares of right responses; at least one half counts as right. Loose: one right sub-problem is enough
    for mastery.
    """
    parts: dict[str, dict[str, bool]] = defaultdict(dict)
    for item, score in zip(items, scores, strict=True):
        parts[str(item.groups["composite"])][str(item.groups["part"])] = score >= 0.5
    composites = [known for known in parts.values() if "multi" in known and len(known) > 2]
    if not composites:
        return {}
    count = len(composites)
    sub = [[right for part, right in known.items() if part != "multi"] for known in composites]
    whole = [known["multi"] for known in composites]
    pairs = list(zip(sub, whole, strict=True))
    insufficient = sum(not right and not all(steps) for steps, right in pairs)
    inadequate = sum(not right and all(steps) for steps, right in pairs)
    metrics = {"composite_problems": float(count)}
    metrics |= {"insufficient_knowledge": insufficient / count, "inadequate_generalization": inadequate / count}
    for name, mastered in (("strict", all), ("loose", any)):
        complete = sum(right and mastered(steps) for steps, right in pairs)
        rote = sum(whole) - complete
        metrics[f"complete_mastery_{name}"] = complete / count
        metrics[f"rote_memorization_{name}"] = rote / sum(whole) if sum(whole) else 0.0
        metrics[f"score_{name}"] = (count - 0.5 * inadequate - rote - insufficient) / count
    return metrics


BENCHMARK = Benchmark(
    name="wemath",
    title="We-Math (testmini)",
    read=read,
    grade=grade,
    protocol="published letter after the last 'Answer' (or the last box), four-dimensional metrics; VLMEvalKit prompt",
    group_keys=("steps",),
    summary=summary,
)
