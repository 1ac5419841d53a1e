r"""MATH-Vision (MathLLMs/MathVision) and its published scoring.

The answer is the last box, or what follows "the answer is" and its kin, or a letter that begins or ends the response.
It is right when it equals the option's letter or text, as a string or as a number rounded to two decimals (tuples
element by element). Wang et al. 2024 (arXiv:2402.14804), `evaluation/`; the rules are written anew here. On the 48,640
responses published with it (16 models) the published grade differs from this one on 18, a model's count of right
answers by at most 3 of 3,040.
"""

from __future__ import annotations

import re
from pathlib import Path

from infimmr_jax.data.markup import last_boxed
from infimmr_jax.data.records import DataError
from infimmr_jax.evaluation.items import Benchmark, Grade, Item
from infimmr_jax.evaluation.latex_values import number
from infimmr_jax.evaluation.sources import find_files, lettered, letters, picture, read_rows, unique_ids
from infimmr_jax.names import JsonObject

PROMPT = (
    'Please solve the problem and put your answer in one "\\boxed{}". If it is a multiple choice question, only one '
    'letter is allowed in the "\\boxed{}".'
)
_ANNOUNCEMENTS = ("the final answer is", "the answer is", "the correct answer is", "the answer should be")
_UNITS = ("{km}", "km", "\\!", "\\$", "$", "\\%")
_DROPPED = ("\\text", "\\mbox", "\\left", "\\right", "^{\\circ}", "^\\circ", "{m}^3", "m^3", "{units}", "units")


def read(path: Path) -> list[Item]:
    """Read the repository's `data/test.jsonl` (or testmini) with `images/`, or the hub's parquet."""
    items = []
    patterns = ["test.jsonl", "test-*.parquet", "test.parquet", "testmini.jsonl", "testmini*.parquet"]
    for file in find_files(path, patterns, "MATH-Vision"):
        for row in read_rows(file, ["id", "question", "options", "answer"]):
            where = f"id {row['id']}"
            options = [str(option) for option in row["options"]]
            answer = str(row["answer"])
            if options and answer not in letters(len(options)):
                raise DataError(f"{file}, {where}: the answer {answer!r} is not a letter of {len(options)} options")
            worded = options if "".join(options) != "".join(letters(len(options))) else []
            question = row["question"]
            listing = f"{lettered(worded)}\n" if worded else ""
            items.append(
                Item(
                    id=str(row["id"]),
                    prompt=f"{PROMPT}\n{question}\n{listing}",
                    question=question,
                    answer=answer,
                    answer_type="choice" if options else "math",
                    choices=tuple(options),
                    # The published setting shows one merged picture, however many the question names.
                    images=(picture(row.get("decoded_image") or row.get("image"), file, where),),
                    gold={"answer": answer, "option": options[letters(len(options)).index(answer)] if options else ""},
                    groups={key: str(row[key]) for key in ("level", "subject") if row.get(key) is not None},
                )
            )
    unique_ids([item.id for item in items], path)
    return items


def grade(gold: JsonObject, text: str) -> Grade:
    """Grade a response by the published rules."""
    if not text.strip():
        return Grade(False, None, "empty")
    answer = find_answer(text)
    correct = equal(gold["answer"], answer) or equal(gold["option"], answer)
    return Grade(correct, answer or None)


def find_answer(response: str) -> str:
    """The answer of a response, lower case and cleaned; free text comes back whole."""
    text = response.strip()
    for letter in "ABCDE":
        ends = text.endswith((f" {letter}.", f" ({letter})."))
        if ends or text.startswith((f"{letter}\n", f"({letter})\n", f"({letter}) {letter}\n")):
            text = letter
    after_is = text.split("is ")[-1].rstrip(".")
    if _is_float(after_is):
        text = after_is
    if "oxed{" not in text:
        for phrase in _ANNOUNCEMENTS:
            for form in (phrase, phrase.replace("the", "The")):
                if form in text:
                    text = text.split(form)[-1].strip().split("\n")[0].split(". ")[0]
    answer = clean(text.lower())
    for letter in "abcde":
        answer = answer.replace(f"({letter})", letter).replace(f"{{{letter}}}", letter)
    return answer.rstrip(".").lstrip(":").strip()


def clean(text: str) -> str:
    """The content of the last box (or all of a text), right of the last `=` or `\\approx`, without LaTeX wrapping."""
    text = text.replace("{}", "")
    boxed = last_boxed(text)
    if boxed is not None:
        text = boxed
    elif "oxed{" in text:
        text = text.split("oxed{")[-1].rpartition("}")[0] or text
    closing, opening = text.find("}"), text.find("{")
    if closing != -1 and (opening == -1 or closing < opening):
        text = text[:closing]
    text = text.split("=")[-1].split("\\approx")[-1]
    text = text.replace(" ", "").replace("\\,", "").replace("∞", "\\infty").replace("+\\infty", "\\infty")
    text = text.replace("\\\\", "\\").replace("\n", "").replace("bmatrix", "pmatrix")
    for dropped in (*_DROPPED, *_UNITS):
        text = text.replace(dropped, "")
    text = text.replace("tfrac", "frac").replace("dfrac", "frac").replace("{.", "{0.")
    text = f"0{text}" if text.startswith(".") else text
    if "sqrt" in text:
        text = re.sub(r"\\sqrt([^{])", r"\\sqrt{\1}", text)
        text = re.sub(r"\\frac([^{])([^{])", r"\\frac{\1}{\2}", text)
        text = re.sub(r"\\frac([^{])\{", r"\\frac{\1}{", text)
    if text == "0.5":
        return "\\frac{1}{2}"
    return re.sub(r"^(0|-?[1-9]\d*)/(0|-?[1-9]\d*)$", r"\\frac{\1}{\2}", text)


def equal(gold: str, answer: str) -> bool:
    """Equal as strings, as tuples of numbers, or as numbers, rounded to two decimals; an empty side is never equal."""
    gold, answer = gold.lower(), answer.lower()
    if not gold.strip() or not answer.strip():
        return False
    if gold.strip() == answer.strip():
        return True
    gold, answer = _tuple_values(gold), _tuple_values(answer)
    if gold == answer:
        return True
    gold_value, answer_value = _value(gold), _value(answer)
    return gold_value is not None and answer_value is not None and round(gold_value, 2) == round(answer_value, 2)


def _tuple_values(text: str) -> str:
    """A tuple or list with every element's value rounded; any other text, and one with an unknown, as it is."""
    parts = text[1:-1].split(",")
    if len(parts) < 2 or (text[0], text[-1]) not in (("(", ")"), ("[", "]")):
        return text
    values = []
    for part in parts:
        if "infty" in part or part in ("a", "-a"):
            values.append(part)
            continue
        value = _value(part)
        if value is None:
            return text
        values.append(f"{round(value, 2):g}")
    return f"{text[0]}{','.join(values)}{text[-1]}"


def _value(text: str) -> float | None:
    # A degree sign is no number to the published parser: against the option $40^\\circ$ only its letter is right.
    return None if "\\circ" in text else number(re.sub(r"^\{([^{}]*)\}$", r"\1", text), largest_power=1e4)


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


BENCHMARK = Benchmark(
    name="mathvision",
    title="MathVision (test)",
    read=read,
    grade=grade,
    protocol="MATH-Vision's own rules (last box or announced answer; letter or option text; two decimals)",
    paper=27.04,
    group_keys=("level", "subject"),
)
