r"""OlympiadBench (OpenBMB/OlympiadBench, Hothan/OlympiadBench): open-ended problems with the published judge.

Theorem-proving rows have no automatic score and are left out when they lie beside others. He et al. 2024
(arXiv:2402.14008), `inference/`; prompts as published, rules written anew.
"""

from __future__ import annotations

import re
from pathlib import Path

from infimmr_jax.data.records import DataError
from infimmr_jax.evaluation.items import Benchmark, Grade, Item, MissingPicture, Picture
from infimmr_jax.evaluation.olympiad_judge import DEFAULT_PRECISION, judge
from infimmr_jax.evaluation.sources import Row, find_files, picture, read_rows, unique_ids
from infimmr_jax.names import JsonObject

_TYPES = {
    "Numerical": ("a numerical value", "数值"),
    "Expression": ("an expression", "表达式"),
    "Equation": ("an equation", "方程"),
    "Interval": ("an interval", "区间"),
}
_TAG = re.compile(r"<(?:img|image)_\d+>")
_PATTERNS = ["OE_*.json", "OE_*/*.parquet", "OE_*.parquet", "*.parquet"]
_NAME = re.compile(r"(OE|TP)_(MM|TO)_(maths|physics)_(en|zh)_(COMP|CEE)")


def read(path: Path) -> list[Item]:
    """Read one or all of the repository's `OE_*.json` (with `images/`), or the hub's parquet of one or all configs."""
    items = []
    for file in find_files(path, _PATTERNS, "OlympiadBench"):
        name = _NAME.search(str(file.relative_to(path) if path.is_dir() else file.name)) or _NAME.search(str(file))
        rows = read_rows(file, ["id", "question", "final_answer", "answer_type"])
        for row in rows:
            where = f"id {row['id']}"
            subset = name[0] if name else _subset_of(row, file, where)
            if subset.startswith("TP"):
                raise DataError(f"{file} holds theorem proving, which has no automatic score; give the OE_ files")
            final = row["final_answer"]
            gold = final[0] if isinstance(final, list) and final else final
            if not isinstance(gold, str) or not gold.strip():
                raise DataError(f"{file}, {where}: there is no final answer")
            question = _question(row, subset)
            images = _images(row, question, file, where)
            items.append(
                Item(
                    id=f"{subset}/{row['id']}",
                    prompt=f"{instruction(row, subset)}\n{_marked(question, len(images))}",
                    question=_marked(question, len(images)),
                    answer=gold,
                    answer_type="math",
                    images=images,
                    gold={
                        "answer": gold,
                        "precision": precision(row, file, where),
                        "chinese": "_zh_" in subset,
                    },
                    groups={
                        "subset": subset,
                        "subject": "maths" if "maths" in subset else "physics",
                        "language": "zh" if "_zh_" in subset else "en",
                        "modality": "images" if "_MM_" in subset else "text",
                        **({"subfield": str(row["subfield"])} if row.get("subfield") else {}),
                    },
                )
            )
    unique_ids([item.id for item in items], path)
    return items


def instruction(row: Row, subset: str) -> str:
    """The published instruction of an open-ended problem, by language, subject, answer type, number and unit."""
    several, unit = bool(row.get("is_multiple_answer")), row.get("unit")
    if "_zh_" in subset:
        subject = "数学" if "maths" in subset else "物理"
        box = "\\boxed{用英文逗号连接的多个答案}" if several else "\\boxed{答案}"
        box += "(单位)" if unit else ""
        note = "，注意答案的单位不要放在\\boxed{}中" if unit else ""
        kind = _type_text(row["answer_type"], several, chinese=True)
        return (
            f"以下是中国{subject}竞赛中的解答题{kind}。请根据题目的要求和所提供的信息计算得出答案。解答过程和结果中使用的变量和公式请使用LaTeX格式表示。"
            f"请在最后以“所以最终答案是{box}。”显式给出结果{note}。"
        )
    subject = "Math" if "maths" in subset else "Physics"
    box = "\\boxed{multiple answers connected with commas}" if several else "\\boxed{answer}"
    box += "(unit)" if unit else ""
    note = ", note that the unit of the answer should not be included in \\boxed{}" if unit else ""
    return (
        f"The following is an open-ended problem from an International {subject} competition. "
        f"{_type_text(row['answer_type'], several, chinese=False)}Please calculate the answer according to the given "
        "requirements and the information provided. Please use LaTeX format to represent the variables and formulas "
        f'used in the solution process and results. Please end your solution with "So the final answer is {box}." '
        f"and give the result explicitly{note}."
    )


def precision(row: Row, file: Path, where: str) -> float | list[float]:
    """The absolute tolerance from a row's `error`, or one a value of the answer; a tuple has none."""
    error = row.get("error")
    if not error or "Tuple" in row["answer_type"]:
        return DEFAULT_PRECISION
    try:
        if "," in str(error):
            return [float(part) if part.strip() else DEFAULT_PRECISION for part in str(error).split(",")]
        return float(error)
    except ValueError:
        raise DataError(f"{file}, {where}: the tolerance {error!r} is not a number") from None


def grade(gold: JsonObject, text: str) -> Grade:
    """Grade what follows the last "So the final answer is", or all boxes of a response."""
    marker = "所以最终答案是(.*)" if gold["chinese"] else "So the final answer is (.*)"
    stated = re.findall(marker, text)
    answer = stated[-1].strip() if stated else text.strip()
    if not answer:
        return Grade(False, None, "empty")
    found = bool(stated) or "\\boxed" in answer
    return Grade(judge(gold["answer"], answer, gold["precision"]), answer[-200:] if found else None)


def _type_text(answer_type: str, several: bool, chinese: bool) -> str:
    if "Need_human_evaluate" in answer_type or "Tuple" in answer_type:
        return ""
    names = [_TYPES[key][chinese] for part in answer_type.split(",") for key in _TYPES if key in part]
    if not names:
        raise DataError(f"OlympiadBench has no answer type {answer_type!r}")
    if not several:
        return f"，答案类型为{names[0]}" if chinese else f"The answer of The problem should be {names[0]}. "
    if len(set(names)) == 1:
        alike = f"The problem has multiple answers, each of them should be {names[0]}. "
        return f"，题目有多个答案，答案类型均为{names[0]}" if chinese else alike
    if chinese:
        return f"，题目有多个答案，答案类型分别为{'、'.join(names)}"
    return f"The problem has multiple answers, with the answers in order being {', '.join(names)}. "


def _question(row: Row, subset: str) -> str:
    context = row.get("context")
    return f"{context}\n{row['question']}" if context and "physics" in subset else str(row["question"])


def _images(row: Row, question: str, file: Path, where: str) -> tuple[Picture, ...]:
    """Pictures of the hub's columns `image_1`.., or those that the tags `<img_3362>` name in `images/`."""
    columns = [
        row[key] for key in sorted((k for k in row if re.fullmatch(r"image_\d+", k)), key=_number_of) if row[key]
    ]
    if columns:
        return tuple(picture(value, file, where) for value in columns)
    names = dict.fromkeys(tag.strip("<>") for tag in _TAG.findall(question) if tag.startswith("<img_"))
    return tuple(_file_picture(name, file, where) for name in names)


def _file_picture(name: str, file: Path, where: str) -> Picture:
    for ending in ("jpg", "png", "jpeg"):
        image = picture(f"{name}.{ending}", file, where)
        if not isinstance(image, MissingPicture):
            return image
    return MissingPicture(f"{file}, {where}: there is no image {name}.jpg in the images directory beside `data`")


def _marked(question: str, images: int) -> str:
    """The question with `<image>` for every tag when tags and pictures agree; otherwise the pictures come first."""
    tags = _TAG.findall(question)
    if len(tags) == images and len(set(tags)) == images:
        return _TAG.sub("<image>", question)
    return question


def _number_of(key: str) -> int:
    return int(key.rpartition("_")[2])


def _subset_of(row: Row, file: Path, where: str) -> str:
    """The config's name from the hub's columns, for a parquet file whose path does not tell it."""
    values = [
        str(row.get(key) or "").lower() for key in ("question_type", "modality", "subject", "language", "difficulty")
    ]
    kind = "TP" if "theorem" in values[0] else "OE"
    modality = "MM" if values[1].startswith("multi") else "TO"
    subject = "physics" if "physic" in values[2] else "maths" if "math" in values[2] else ""
    language = "zh" if values[3].startswith(("zh", "chinese")) else "en" if values[3].startswith("en") else ""
    level = "COMP" if values[4].startswith("comp") else "CEE"
    if not subject or not language:
        raise DataError(f"{file}, {where}: neither path nor columns tell the subset; name it like OE_MM_maths_en_COMP")
    return f"{kind}_{modality}_{subject}_{language}_{level}"


BENCHMARK = Benchmark(
    name="olympiadbench",
    title="OlympiadBench",
    read=read,
    grade=grade,
    protocol="OlympiadBench's automatic judge in the order of inference/judge.py, where the model's answer may be in "
    "percent and owns a list of tolerances (open-ended problems of the given subsets)",
    paper=21.33,
    group_keys=("subset", "subject", "language", "modality", "subfield"),
)
