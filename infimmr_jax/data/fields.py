"""Rows of any trainer or benchmark with customary columns: what is not understood is refused, nothing is dropped.

The tables of Hugging Face, MM-Eureka, EasyR1, verl, TRL, MMMU and MMBench, and the conversations that `turns` reads.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Sequence

from infimmr_jax.data.answer_forms import FORMS, answer_text
from infimmr_jax.data.columns import (
    NOTES,
    after_thinking,
    check_length,
    first_given,
    first_text,
    gold_in,
    known_type,
    level_of,
    plain_answer,
    reasoning_in,
    typed_answer,
)
from infimmr_jax.data.question_options import letter_columns, read_options
from infimmr_jax.data.raw_records import Record
from infimmr_jax.data.records import DataError
from infimmr_jax.data.rows import describe_keys, quoted
from infimmr_jax.data.turns import IMAGE_MARK, Dialogue, read_dialogue, row_pictures

QUESTION_KEYS = ("question", "problem", "query", "prompt", "instruction")
GOLD_KEYS = ("answer", "ground_truth", "gold", "label", "final_answer")
ID_KEYS = ("id", "pid", "qid", "unique_id", "sample_index")
# Texts that belong to the question in some tables: they stay beside the problem, and that is said.
CONTEXT_KEYS = ("context", "hint", "passage")
VERIFY_KEYS = frozenset(("rule", "tolerance", "threshold", "alternatives"))
_NUMBERED = re.compile(r"<image[ _]?([1-9]\d?)>")


def one_question_each(record: Record) -> list[Record]:
    """Split a conversation that answers several questions into a record for each, with the turns before it as context.

    A conversation whose gold stands in a column of its own asks one question, the last.
    """
    if _question_column(record) or _gold_column(record) is not None:
        return [record]
    dialogue, columns = read_dialogue(record)
    if dialogue is None:
        return [record]
    turns = [turn for turn in dialogue.turns if turn.role != "system"]
    if len(turns) <= 2:
        return [record]
    roles = [turn.role for turn in turns]
    if roles != ["user", "assistant"] * (len(turns) // 2):
        raise DataError(
            f"the roles are {', '.join(roles)[:100]}; user and assistant must alternate, with an answer each"
        )
    pictures, picture_columns = row_pictures(record)
    if pictures and dialogue.pictures:
        raise DataError("the row has pictures in its turns and in a column of its own; one of them must go")
    shown = [*dialogue.pictures, *pictures.values()]
    if dialogue.marks not in (0, len(shown)):
        raise DataError(f"the turns have {dialogue.marks} {IMAGE_MARK} marks for {len(shown)} pictures")
    rest = {key: value for key, value in record.items() if key not in columns | picture_columns}
    given = first_given(record, ID_KEYS)
    several = []
    for count in range(1, len(turns) // 2 + 1):
        question = _with_context([turn.text for turn in turns[: 2 * count - 1]])
        marks = question.count(IMAGE_MARK)
        one = {"question": question, "answer": turns[2 * count - 1].text, "turn": count}
        one["images"] = shown[:marks] if dialogue.marks else shown
        several.append(rest | one | ({given[0]: f"{given[1]}-turn{count}"} if given else {}))
    return several


def from_fields(record: Record, name: str) -> Record:
    """Make a row of any record whose fields have customary names; docs/data.md, "Rows of others", has them all.

    Raises DataError, quoting the row, where there is no question or no answer, where several columns contradict each
    other, and for a picture, a part, an option or an answer that is not understood.
    """
    notes: list[str] = []
    dialogue, columns = read_dialogue(record)
    question, shown, used = _question(record, dialogue, notes)
    numbered, picture_columns = row_pictures(record)
    if shown and numbered:
        if [*shown] != [*numbered.values()]:
            raise DataError("the row has pictures in its turns and others in a column of its own; one of them must go")
        numbered = {}
    kind = known_type(record.get("answer_type"))
    gold, gold_key = _gold(record, dialogue, kind)
    choices = _choices(record)
    texts, pictures = _placed([question, *choices], numbered)
    row = typed_answer(texts[0], gold, texts[1:], kind)
    own, foreign = _own_columns(record, notes)
    solution = record.get("solution")
    consumed = {*columns, *used, *picture_columns, "answer", "choices", "options", "answer_type", "level", "solution"}
    given = first_given(record, ID_KEYS)
    source = first_given(record, ("source", "data_source"))
    notes += [f"`{key}` is kept beside the problem, not shown" for key in CONTEXT_KEYS if record.get(key)]
    if gold_key not in ("answer", "turns"):
        notes.append(f"the answer is that of `{gold_key}`")
    return (
        {key: value for key, value in record.items() if key not in consumed and key not in foreign}
        | {f"orig_{key}": value for key, value in foreign.items()}
        | row
        | own
        | {
            "id": str(given[1]) if given and isinstance(given[1], str | int) and given[1] != "" else name,
            "images": [*shown, *pictures],
            "solution": reasoning_in(solution) if isinstance(solution, str) else None,
            "source": str(source[1])[:200] if source else re.sub(r"-\d+(?:-turn\d+)?$", "", name),
            "subject": first_text(record.get("subject") or record.get("category") or record.get("ability")),
            NOTES: notes,
        }
    )


def _question_column(record: Record) -> tuple[str, str] | None:
    return next(((key, record[key]) for key in QUESTION_KEYS if _is_question(record, key)), None)


def _is_question(record: Record, key: str) -> bool:
    value = record.get(key)
    if not isinstance(value, str) or not value.strip():
        return False
    # `query` and `instruction` with an answer beside them are a conversation, and so are turns as JSON text.
    paired = any(isinstance(record.get(said), str) for said in ("response", "output", "completion"))
    return not (key in ("query", "instruction", "prompt") and paired) and not value.lstrip().startswith("[{")


def _question(record: Record, dialogue: Dialogue | None, notes: list[str]) -> tuple[str, list[str | bytes], set[str]]:
    """The question, the pictures that its turns bring, and the columns it was read from."""
    column = _question_column(record)
    if column is not None:
        check_length(column[1], column[0])
        return column[1], list(dialogue.pictures) if dialogue else [], {column[0]}
    if dialogue is None:
        raise DataError(
            f"there is no question: expected one of {', '.join(QUESTION_KEYS)}, messages, conversations; the row has "
            f"{describe_keys(record)}"
        )
    turns = list(dialogue.turns)
    if any(turn.role == "system" for turn in turns):
        notes.append("a system message is not shown: the run has its own")
        turns = [turn for turn in turns if turn.role != "system"]
    asked = turns[:-1] if turns and turns[-1].role == "assistant" else turns
    roles = [turn.role for turn in asked]
    if not asked or roles != ["user", "assistant"] * (len(asked) // 2) + ["user"]:
        raise DataError(
            f"the roles are {', '.join(turn.role for turn in turns)[:100]}; user and assistant must alternate"
        )
    return _with_context([turn.text for turn in asked]), list(dialogue.pictures), set()


def _with_context(texts: Sequence[str]) -> str:
    """Questions and answers in turn, ending with the question that is asked: earlier ones stand before it."""
    for text in texts:
        check_length(text, "messages")
    earlier = [
        f"{asked}\nAnswer: {after_thinking(said)}\n\n" for asked, said in zip(texts[:-1:2], texts[1::2], strict=True)
    ]
    return "".join(earlier) + texts[-1]


def _gold_column(record: Record) -> tuple[str, object] | None:
    """The column with the gold answer: of this name, or inside verl's `reward_model`, or a solution that marks it."""
    given = first_given(record, GOLD_KEYS)
    if given is not None:
        return given
    for key, inner in (("reward_model", "ground_truth"), ("extra_info", "answer")):
        if isinstance(record.get(key), dict) and record[key].get(inner) is not None:
            return f"{key}.{inner}", record[key][inner]
    solution = record.get("solution")
    marked = gold_in(solution, "solution") if isinstance(solution, str) else None
    return None if marked is None else ("solution", marked)


def _gold(record: Record, dialogue: Dialogue | None, kind: str | None) -> tuple[str, str]:
    """The gold answer as text, and the column it stands in (`turns`: what the assistant says last)."""
    column = _gold_column(record)
    if column is None:
        if dialogue is None or dialogue.turns[-1].role != "assistant":
            raise DataError(
                f"there is no answer: expected one text or number in {', '.join(GOLD_KEYS)}, "
                f"reward_model.ground_truth, solution or messages; the row has {describe_keys(record)}"
            )
        column = ("turns", dialogue.turns[-1].text)
        said = gold_in(column[1], "messages")
        return after_thinking(column[1]) if said is None else said.strip(), "turns"
    key, value = column
    if kind in FORMS and kind is not None and not (isinstance(value, list) and len(value) == 1 and kind == "number"):
        return answer_text(value, kind), key
    if isinstance(value, str) and value.lstrip().startswith(("['", '["')) and len(value) < 2000:
        value = _listed(value)
    return plain_answer(value, key), key


def _listed(text: str) -> object:
    """MMMU writes several accepted answers as the text of a list of texts."""
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError, IndexError):
        return text
    return value if isinstance(value, list) and all(isinstance(item, str) for item in value) else text


def _choices(record: Record) -> tuple[str, ...]:
    given = [key for key in ("choices", "options") if record.get(key) not in (None, [], {}, "")]
    options = [read_options(record[key]) for key in given]
    if len(set(options)) > 1:
        raise DataError(f"`choices` ({quoted(record['choices'])}) and `options` ({quoted(record['options'])}) differ")
    return options[0] if options else letter_columns(record)


def _placed(texts: list[str], pictures: dict[int, str | bytes]) -> tuple[list[str], list[str | bytes]]:
    """Texts with plain marks for numbered ones (`<image 1>`, `<image1>`), and the pictures in the order of the marks.

    A picture that is named again is "image 1"; where one picture shows all, as in MathVision, the names stay as words.
    """
    numbers = [int(number) for text in texts for number in _NUMBERED.findall(text)]
    if not numbers:
        return texts, list(pictures.values())
    if any(IMAGE_MARK in text for text in texts):
        raise DataError(f"the row has numbered marks such as <image {numbers[0]}> beside {IMAGE_MARK}")
    if len(pictures) == 1 and set(numbers) != set(pictures):
        return [_NUMBERED.sub(r"image \1", text) for text in texts], list(pictures.values())
    if set(numbers) != set(pictures):
        raise DataError(f"the marks name the images {sorted(set(numbers))}, the row has the pictures {list(pictures)}")
    order: list[int] = []

    def mark(match: re.Match[str]) -> str:
        number = int(match[1])
        if number in order:
            return f"image {number}"
        order.append(number)
        return IMAGE_MARK

    return [_NUMBERED.sub(mark, text) for text in texts], [pictures[number] for number in order]


def _own_columns(record: Record, notes: list[str]) -> tuple[Record, Record]:
    """Columns read as those of the common layout, and those that merely have such a name."""
    own: Record = {"level": level_of(record.get("level"))}
    foreign = {key: record[key] for key, fits in _OURS.items() if record.get(key) is not None and not fits(record[key])}
    if isinstance(record.get("caption"), list) and "caption" not in foreign:
        own["caption"] = record["caption"][0]
    notes += [f"`{key}` is not that of the common layout and is left aside" for key in foreign]
    return own, foreign


def _is_verify(value: object) -> bool:
    return isinstance(value, dict) and {key for key, item in value.items() if item is not None} <= VERIFY_KEYS


def _texts(values: list[object]) -> int:
    return sum(isinstance(value, str) for value in values)


def _is_size(value: object) -> bool:
    sides = value if isinstance(value, list) else []
    return len(sides) == 2 and all(
        isinstance(side, int | float) and not isinstance(side, bool) and 0 < side < math.inf for side in sides
    )


_OURS: dict[str, Callable[[object], bool]] = {
    "answer_type": lambda value: known_type(value) is not None,
    "level": lambda value: level_of(value) is not None,
    "caption": lambda value: isinstance(value, str) or (isinstance(value, list) and len(value) == 1 == _texts(value)),
    "verify": _is_verify,
    "image_size": _is_size,
    "seen_size": _is_size,
    "answer_image": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "subject": lambda value: first_text(value) is not None,
    "solution": lambda value: isinstance(value, str),
}

__all__ = ["from_fields", "one_question_each"]
