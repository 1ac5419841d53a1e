r"""MathVerse testmini (AI4Math/MathVerse): 788 problems in five versions, from all text to all picture.

The published protocol lets GPT extract the answer and judge it. Here both are rules: the last box, or the announced
answer, or the last option named; a letter or the text of its option is right; a value is right when math-verify finds
it equal. Zhang et al. 2024 (arXiv:2403.14624). Text Only is no part of the overall score: read its file on its own.

Two prompts are published: `query_wo` asks for the answer directly and gives the w/o score, which is that of the
leaderboard; `query_cot` asks to reason first and belongs to the CoT evaluation, whose code was never released.
"""

from __future__ import annotations

import re
from pathlib import Path

from infimmr_jax.evaluation.answers import last_number, last_option_letter, option_letter, option_letters, stated_answer
from infimmr_jax.evaluation.items import Benchmark, Grade, Item
from infimmr_jax.evaluation.sources import find_files, picture, read_rows, unique_ids
from infimmr_jax.names import JsonObject
from infimmr_jax.rewards.math.verify_math import verify_math

# A label is words, or their initials: Surface Area, S.A.
_LABEL = re.compile(r"[{}\sA-Za-z.]*[A-Za-z.{}]{2}[{}\sA-Za-z.]*")
_WORDS = r"(?:square|cubic)?\s*(?:units?|[ckm]?m|met(?:er|re)s?|lit(?:er|re)s?|k?g|feet|ft|inch(?:es)?|degrees?|T)"
_UNIT = re.compile(
    rf"(?:\\(?:text|mathrm)\s*\{{[^{{}}]*\}}|(?<![A-Za-z\\]){_WORDS})(?:\s*\^?\s*\{{?[23]\}}?)?$", re.IGNORECASE
)
_REQUIRED = ["sample_index", "problem_version", "question", "answer", "question_type", "query_wo"]
_OPTION = re.compile(r"^\s*\(?([A-J])\)?\s*[:.)]\s*(.*?)\s*$")


def read(path: Path) -> list[Item]:
    """Read `testmini.json` with the unpacked images, the hub's parquet, or the text-only file of either form."""
    items = []
    patterns = ["testmini.json", "testmini.parquet", "testmini-*.parquet", "testmini_text_only*", "testmini_text-only*"]
    for file in find_files(path, patterns, "MathVerse"):
        for row in read_rows(file, _REQUIRED):
            where = f"sample {row['sample_index']}"
            is_choice = row["question_type"] == "multi-choice"
            options = options_of(row["question"] or row.get("question_for_eval") or "") if is_choice else {}
            metadata = row.get("metadata") or {}
            image = row.get("image")
            answer = str(row["answer"])
            items.append(
                Item(
                    id=str(row["sample_index"]),
                    prompt=row["query_wo"],
                    prompt_cot=row.get("query_cot") or None,
                    question=row["question"] or "Solve the problem that is shown in the image.",
                    answer=answer,
                    answer_type="string" if is_choice else "math",
                    images=(picture(image, file, where),) if image else (),
                    gold={"answer": answer, "options": options, "choice": is_choice},
                    groups={
                        "version": row["problem_version"],
                        **{key: str(metadata[key]) for key in ("subject", "subfield") if metadata.get(key)},
                        "question_type": row["question_type"],
                    },
                )
            )
    unique_ids([item.id for item in items], path)
    return items


def options_of(question: str) -> dict[str, str]:
    """Option texts by letter from the lines after `Choices:`; empty when the question lists none (Vision Only)."""
    _, listed, tail = question.partition("Choices:")
    found = [_OPTION.match(line) for line in tail.splitlines()] if listed else []
    return {match[1]: match[2] for match in found if match and match[2]}


def grade(gold: JsonObject, text: str) -> Grade:
    """Grade a response by rule."""
    stated = stated_answer(text)
    if gold["choice"]:
        return _grade_choice(gold, text, stated)
    answer = stated if stated is not None else last_number(text.strip().rsplit("\n", 1)[-1])
    if answer is None:
        return Grade(False, None, "no boxed or announced answer")
    return Grade(_values_equal(gold["answer"], answer), answer)


def _grade_choice(gold: JsonObject, text: str, stated: str | None) -> Grade:
    letters = "".join(gold["options"]) or "ABCDEFGH"
    wanted = option_letters(gold["answer"])
    if len(wanted) > 1:
        named = option_letters(stated or "")
        return Grade(named == wanted, stated, "" if named else "no options named")
    letter = option_letter(stated, letters) if stated is not None else last_option_letter(text, letters)
    # A gold that is no letter (False) is the text of an option, or stands for itself.
    alike = [name for name, option in gold["options"].items() if _folded(option) == _folded(gold["answer"])]
    right = next(iter(wanted), None) or (alike[0] if len(alike) == 1 else None)
    if letter is not None and right is not None:
        return Grade(letter == right, letter)
    if stated is None:
        return Grade(False, None, "no option named")
    value = gold["options"].get(right) if wanted else gold["answer"]
    return Grade(value is not None and _values_equal(value, stated), stated)


def _values_equal(gold: str, answer: str) -> bool:
    """Equal as texts or by math-verify, with or without a word label (`Area =`); one side may leave its unit out."""
    gold, answer = _latex(gold), _latex(answer)
    golds, answers = {gold, _unlabelled(gold)}, {answer, _unlabelled(answer)}
    pairs = [(left, right) for left in golds for right in answers]
    pairs += [(_without_unit(left), right) for left in golds for right in answers if _without_unit(right) == right]
    pairs += [(left, _without_unit(right)) for left in golds for right in answers if _without_unit(left) == left]
    if any(_folded(left) == _folded(right) for left, right in pairs):
        return True
    return any(verify_math(left, right).score == 1.0 for left, right in dict.fromkeys(pairs))


def _unlabelled(text: str) -> str:
    """Right of `Surface Area =`; a text without such a label as it is."""
    label, equals, value = text.replace("$", "").strip().partition("=")
    is_label = _LABEL.fullmatch(label.replace("\\mathrm", ""))
    return value.strip() if equals and value.strip() and "=" not in value and is_label else text


def _without_unit(text: str) -> str:
    shorter = _UNIT.sub("", text.replace("$", "").strip())
    return shorter.strip() if re.search(r"\d|\\pi", shorter) else text


def _folded(text: str) -> str:
    text = re.sub(r"\\(?:text|mathrm)\s*\{([^{}]*)\}", r"\1", text)
    return re.sub(r"\\left|\\right|\\[,!;\[\]()]|[\s$~]", "", text).lower().removesuffix(".")


def _latex(text: str) -> str:
    r"""Signs of the benchmark's plain text as LaTeX: `√{3}` is `\sqrt{3}`."""
    text = re.sub(r"√\s*\{", r"\\sqrt{", text)
    text = re.sub(r"√\s*\(([^()]*)\)", r"\\sqrt{\1}", text)
    text = re.sub(r"√\s*(\d+(?:\.\d+)?|[a-zA-Z])", r"\\sqrt{\1}", text)
    return text.replace("π", "\\pi ").replace("°", "^\\circ ").replace("掳", "^\\circ ").replace("×", "\\times ")


BENCHMARK = Benchmark(
    name="mathverse",
    title="MathVerse (testmini)",
    read=read,
    grade=grade,
    protocol="w/o score by rules in place of the published GPT extraction and judgement (letter, option text, or "
    "math-verify)",
    paper=43.68,
    group_keys=("version", "subject", "subfield", "question_type"),
    prompts={
        "published": "query_wo: answer directly, as for the leaderboard's w/o score",
        "published-cot": "query_cot: reason first, the prompt of the CoT evaluation; not that of the leaderboard",
    },
)
