"""Published layouts: how the record of a known data set becomes a row of the common layout (see `rows`)."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from infimmr_jax.data.columns import (
    NOTES,
    as_list,
    check_length,
    first_given,
    first_text,
    gold_in,
    level_of,
    plain_answer,
    text_of,
    typed_answer,
)
from infimmr_jax.data.fields import from_fields, one_question_each
from infimmr_jax.data.geometry_captions import describe_diagram
from infimmr_jax.data.raw_records import Record, Rows, decode_below, folder_records, raw_records
from infimmr_jax.data.records import DataError
from infimmr_jax.data.roots import is_below
from infimmr_jax.data.rows import describe_keys, quoted
from infimmr_jax.data.turns import read_picture
from infimmr_jax.names import CHOICE_LETTERS


@dataclasses.dataclass(frozen=True)
class Layout:
    """How records of a path become rows.

    `read` yields the raw records of a path; `split` makes of one a record a question; `convert` makes a row of that,
    given a name to build ids from. Only where `unique_ids` is an id that was used before a mistake.
    """

    read: Callable[[Path], Rows]
    convert: Callable[[Record, str], Record]
    is_folder: bool = False
    split: Callable[[Record], list[Record]] = lambda record: [record]
    unique_ids: bool = False


def layout_rows(layout: Layout, path: Path) -> Iterator[tuple[int, Record | DataError]]:
    """Yield row number and row of the common layout for every question; one that can not be read is a DataError.

    Whatever a record makes a reader raise becomes the DataError of this record.
    """
    for number, record in layout.read(path):
        if isinstance(record, DataError):
            yield number, record
            continue
        try:
            rows = _converted(layout, record, f"{path.stem}-{number}")
        except DataError as error:
            yield number, error
            continue
        except Exception as error:
            yield number, unexpected(error)
            continue
        for row in rows:
            yield number, row


def unexpected(error: Exception) -> DataError:
    """Return what to say of a row that made its reader raise what no reader foresees."""
    return DataError(f"the row can not be read ({type(error).__name__}: {str(error)[:200]})")


def _converted(layout: Layout, record: object, name: str) -> list[Record]:
    if not isinstance(record, dict):
        raise DataError(f"the row is a {type(record).__name__} ({quoted(record)}), not an object with keys")
    parts = layout.split(record)
    if len(parts) == 1:
        return [layout.convert(parts[0], name)]
    return [layout.convert(part, f"{name}-turn{turn}") for turn, part in enumerate(parts, start=1)]


def from_gsm8k(record: Record, name: str) -> Record:
    """GSM8K: `question`, `answer` = worked solution with <<calculations>>, then "#### " and the number."""
    solution, mark, answer = text_of(record, "answer").rpartition("####")
    if not mark:
        raise DataError(f"`answer` has no '####' before the number: {quoted(record['answer'])}")
    return {
        "id": name,
        "question": text_of(record, "question"),
        "answer": answer.strip().replace(",", ""),
        "answer_type": "math",
        "solution": re.sub(r"<<[^<>]*>>", "", solution).strip(),
        "source": "GSM8K",
    }


def from_math(record: Record, name: str) -> Record:
    """MATH, MATH-500 and DeepScaleR: `problem`, `solution` and `answer` (or the last box of the solution).

    `level` is 1 to 5 or "Level 5"; DeepScaleR's is `difficulty`.
    """
    solution = record.get("solution") if record.get("solution") is not None else ""
    if not isinstance(solution, str):
        raise DataError(f"`solution` is a {type(solution).__name__} ({quoted(solution)}), not a text")
    check_length(solution, "solution")
    answer = record.get("answer")
    if answer is None:
        answer = gold_in(text_of(record, "solution"), "solution")
        if answer is None:
            raise DataError(f"there is no `answer`, and `solution` has no \\boxed{{}}: {quoted(solution)}")
    level = first_given(record, ("level", "difficulty"))
    identity = first_given(record, ("unique_id", "_file"))
    unread = level is not None and level_of(level[1]) is None
    return {
        "id": name if identity is None or identity[1] == "" else str(identity[1]),
        "question": text_of(record, "problem"),
        "answer": plain_answer(answer, "answer"),
        "answer_type": "math",
        "solution": solution,
        "subject": first_text(record.get("subject")) or first_text(record.get("type")),
        "level": None if level is None else level_of(level[1]),
        "source": first_text(record.get("source")) or "MATH",
        NOTES: ["the level is no number and is left aside"] if unread else [],
    }


def from_deepscaler(record: Record, name: str) -> Record:
    """DeepScaleR-Preview: a JSON list of `problem`, `answer` (without box) and `solution`; parts add `difficulty`."""
    return from_math({**record, "source": record.get("source") or "DeepScaleR"}, name)


def from_virl39k(record: Record, name: str) -> Record:
    """ViRL39K: `question` with <image> tags and options inside, `answer` in a box, `image` = list of relative paths.

    Copies on the hub carry the pictures in the parquet, under `image` or `images`.

    `level` is 1 minus the measured pass rate of the 7B base model, where there is one (negative rates mean none).
    """
    rate = record.get("PassRate_7BBase")
    measured = isinstance(rate, int | float) and not isinstance(rate, bool) and 0 <= rate <= 1
    row = typed_answer(text_of(record, "question"), plain_answer(text_of(record, "answer"), "answer"))
    identity, pictures = record.get("qid"), first_given(record, ("image", "images"))
    return row | {
        "id": name if identity in (None, "") else str(identity),
        "images": [read_picture(item) for item in as_list(pictures[1] if pictures else None)],
        "source": first_text(record.get("source")) or "ViRL39K",
        "subject": first_text(record.get("category")),
        "level": 1.0 - rate if measured and rate is not None else None,
        "PassRate_7BBase": rate,
        "PassRate_32BTrained": record.get("PassRate_32BTrained"),
    }


def read_geometry3k(folder: Path) -> Rows:
    """Geometry3K's folders: <id>/data.json with logic_form.json and img_diagram.png beside it."""
    for number, record in folder_records(folder, "data.json"):
        if isinstance(record, dict):
            forms = (Path(record["_file"]).parent / "logic_form.json").as_posix()
            if is_below(folder, forms):
                try:
                    record = {**record, "_forms": decode_below(folder, forms)}
                except DataError as error:
                    record = error
        yield number, record


def from_geometry3k(record: Record, name: str) -> Record:
    """Geometry3K (folders): the answer is the text of the right option, so that it is not guessed from four.

    The caption is made of the annotated diagram logic forms where `logic_form.json` is there.
    """
    place = Path(record["_file"]).parent
    choices, letter = as_list(record.get("choices")), str(record.get("answer", "")).strip()
    if len(letter) != 1 or not 0 <= CHOICE_LETTERS.find(letter) < len(choices):
        raise DataError(f"`answer` is {quoted(letter)}, not a letter of the {len(choices)} `choices`")
    annotated = record.get("_forms")
    forms = as_list(annotated.get("diagram_logic_form")) if isinstance(annotated, dict) else []
    return {
        "id": f"geometry3k_{place.as_posix().replace('/', '_')}",
        "question": record.get("annotat_text") or text_of(record, "problem_text"),
        "answer": str(choices[CHOICE_LETTERS.index(letter)]),
        "answer_type": "math",
        "images": [(place / "img_diagram.png").as_posix()],
        "caption": describe_diagram([str(form) for form in forms]) if forms else None,
        "source": "Geometry3K",
        "subject": first_text(record.get("problem_type_graph")),
        "orig_choices": choices,
        "orig_choice_letter": letter,
    }


def from_geometry3k_parquet(record: Record, name: str) -> Record:
    """Geometry3K as parquet (hiyouga/geometry3k): `images` with encoded bytes, `problem` with its mark, `answer`.

    The answer is the right option's text; `choices` are kept under their own name, so that it is not guessed from four.
    """
    choices = record.get("choices")
    return {
        "id": f"geometry3k_{record['id']}" if isinstance(record.get("id"), int | str) else name,
        "question": text_of(record, "problem"),
        "answer": plain_answer(text_of(record, "answer"), "answer"),
        "answer_type": "math",
        "images": [read_picture(item) for item in as_list(record.get("images"))],
        "source": "Geometry3K",
        **({"orig_choices": choices} if choices else {}),
    }


def from_common(record: Record, name: str) -> Record:
    """The common layout: a row as it is; docs/data.md describes it."""
    if not any(key in record for key in ("question", "answer")):
        raise DataError(f"the row has neither `question` nor `answer`; it has {describe_keys(record)}")
    return record


LAYOUTS: dict[str, Layout] = {
    "jsonl": Layout(raw_records, from_common, unique_ids=True),
    "gsm8k": Layout(raw_records, from_gsm8k),
    "math": Layout(raw_records, from_math),
    "deepscaler": Layout(raw_records, from_deepscaler),
    "math_folder": Layout(lambda folder: folder_records(folder, "*.json"), from_math, is_folder=True),
    "virl39k": Layout(raw_records, from_virl39k),
    "geometry3k": Layout(raw_records, from_geometry3k_parquet),
    "geometry3k_folder": Layout(read_geometry3k, from_geometry3k, is_folder=True),
    "fields": Layout(raw_records, from_fields, split=one_question_each),
}

__all__ = ["LAYOUTS", "Layout", "layout_rows", "unexpected"]
