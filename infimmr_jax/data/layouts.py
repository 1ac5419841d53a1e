"""Published layouts: how the record of a known data set becomes a row of the common layout (see `rows`)."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from infimmr_jax.data.answer_forms import FORMS, answer_text
from infimmr_jax.data.files import Record, decode_json, folder_records, raw_records
from infimmr_jax.data.geometry_captions import describe_diagram
from infimmr_jax.data.markup import last_boxed
from infimmr_jax.data.question_options import split_options
from infimmr_jax.data.records import DataError
from infimmr_jax.names import ANSWER_TYPES, CHOICE_LETTERS

TURNS = frozenset(("conversations", "messages", "message"))

Rows = Iterator[tuple[int, Any | DataError]]


@dataclasses.dataclass(frozen=True)
class Layout:
    """`read` yields the raw records of a path; `convert` makes a row of one, given a name to build ids from."""

    read: Callable[[Path], Rows]
    convert: Callable[[Record, str], Record]
    is_folder: bool = False


def layout_rows(layout: Layout, path: Path) -> Rows:
    """Row number and row of the common layout for every record; a record that can not be converted is a DataError."""
    for number, record in layout.read(path):
        if isinstance(record, DataError):
            yield number, record
        elif not isinstance(record, dict):
            yield number, DataError(f"the row is a {type(record).__name__}, not an object with keys")
        else:
            try:
                yield number, layout.convert(record, f"{path.stem}-{number}")
            except DataError as error:
                yield number, error


def from_gsm8k(record: Record, name: str) -> Record:
    """GSM8K: `question`, `answer` = worked solution with <<calculations>>, then "#### " and the number."""
    solution, mark, answer = _text(record, "answer").rpartition("####")
    if not mark:
        raise DataError("`answer` has no '####' before the number")
    return {
        "id": name,
        "question": _text(record, "question"),
        "answer": answer.strip().replace(",", ""),
        "answer_type": "math",
        "solution": re.sub(r"<<.*?>>", "", solution).strip(),
        "source": "GSM8K",
    }


def from_math(record: Record, name: str) -> Record:
    """MATH, MATH-500 and DeepScaleR: `problem`, `solution` and `answer` (or the last box of the solution).

    `level` is 1 to 5 or "Level 5"; DeepScaleR's is `difficulty`.
    """
    solution = record.get("solution") or ""
    answer = record.get("answer")
    if answer is None:
        answer = last_boxed(_text(record, "solution"))
        if answer is None:
            raise DataError("there is no `answer`, and `solution` has no \\boxed{}")
    level = record.get("level", record.get("difficulty"))
    if isinstance(level, str):
        digits = re.search(r"\d+", level)
        level = int(digits[0]) if digits else None  # "Level ?" occurs in MATH
    return {
        "id": str(record.get("unique_id") or record.get("_file") or name),
        "question": _text(record, "problem"),
        "answer": _unboxed(str(answer)),
        "answer_type": "math",
        "solution": solution,
        "subject": record.get("subject") or record.get("type"),
        "level": level,
        "source": record.get("source") or "MATH",
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
    row = _typed(_text(record, "question"), _unboxed(_text(record, "answer")))
    return row | {
        "id": str(record.get("qid") or name),
        "images": [_picture(item) for item in _list(_first_of(record, ("image", "images")))],
        "source": record.get("source") or "ViRL39K",
        "subject": record.get("category"),
        "level": 1.0 - rate if isinstance(rate, int | float) and 0 <= rate <= 1 else None,
        "PassRate_7BBase": rate,
        "PassRate_32BTrained": record.get("PassRate_32BTrained"),
    }


def read_geometry3k(folder: Path) -> Rows:
    """Geometry3K's folders: <id>/data.json with logic_form.json and img_diagram.png beside it."""
    for number, record in folder_records(folder, "data.json"):
        if isinstance(record, dict):
            forms = folder / Path(record["_file"]).parent / "logic_form.json"
            if forms.is_file():
                try:
                    record = {**record, "_forms": decode_json(forms.read_bytes())}
                except DataError as error:
                    record = DataError(f"{forms}: {error}")
        yield number, record


def from_geometry3k(record: Record, name: str) -> Record:
    """Geometry3K (folders): the answer is the text of the right option, so that it is not guessed from four.

    The caption is made of the annotated diagram logic forms where `logic_form.json` is there.
    """
    place = Path(record["_file"]).parent
    choices, letter = _list(record.get("choices")), str(record.get("answer", "")).strip()
    if len(letter) != 1 or not 0 <= CHOICE_LETTERS.find(letter) < len(choices):
        raise DataError(f"`answer` is {letter[:40]!r}, not a letter of the {len(choices)} `choices`")
    annotated = record.get("_forms")
    forms = _list(annotated.get("diagram_logic_form")) if isinstance(annotated, dict) else []
    return {
        "id": f"geometry3k_{place.as_posix().replace('/', '_')}",
        "question": record.get("annotat_text") or _text(record, "problem_text"),
        "answer": str(choices[CHOICE_LETTERS.index(letter)]),
        "answer_type": "math",
        "images": [(place / "img_diagram.png").as_posix()],
        "caption": describe_diagram([str(form) for form in forms]) if forms else None,
        "source": "Geometry3K",
        "subject": _first(record.get("problem_type_graph")),
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
        "question": _text(record, "problem"),
        "answer": _unboxed(_text(record, "answer")),
        "answer_type": "math",
        "images": [_picture(item) for item in _list(record.get("images"))],
        "source": "Geometry3K",
        **({"orig_choices": choices} if choices else {}),
    }


def from_fields(record: Record, name: str) -> Record:
    """Any record whose fields have customary names: Hugging Face parquet with embedded images, MM-style JSON lines.

    Question: `question`, `problem`, `query`, `prompt`, or the user's turn of `conversations`, `messages` or `message`
    (a list, or that list as JSON text: MM-Eureka, LMM-R1). Answer:
    `answer`, `ground_truth`, `solution` (its last box), or the assistant's turn; its type: `answer_type`, or by its
    looks math or string. Images: `images` or `image`, each a
    path or an object with `bytes` or `path`; options: `choices` or `options`, or inside the question.
    """
    asked, answered, shown = _turns(record)
    question = _first_of(record, ("question", "problem", "query", "prompt")) or asked
    answer = _first_of(record, ("answer", "ground_truth", "gold", "label")) or answered
    solution = record.get("solution")
    if answer is None and isinstance(solution, str):
        answer = last_boxed(solution) or _tagged(solution)
    if not isinstance(question, str):
        raise DataError("there is no question: expected one of question, problem, query, prompt, messages")
    said = record.get("answer_type")
    if said in FORMS and answer is not None:
        answer = answer_text(answer, said)
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    if not isinstance(answer, str | int | float) or isinstance(answer, bool):
        raise DataError("there is no answer: expected one text or number in answer, ground_truth, solution or messages")
    options = _list(record.get("choices") or record.get("options"))
    row = _typed(question, _unboxed(str(answer)), tuple(str(o) for o in options), said)
    images = record.get("images") if record.get("images") is not None else record.get("image")
    pictures = shown if images is None else _list(images)
    used = {"question", "problem", "query", "prompt", "answer", "images", "image", "choices", "options", "answer_type"}
    return (
        {key: value for key, value in record.items() if key not in used | TURNS}
        | row
        | {
            "id": str(_first_of(record, ("id", "pid", "qid", "unique_id", "sample_index")) or name),
            "images": [_picture(item) for item in pictures],
            "solution": solution if isinstance(solution, str) else None,
            "source": record.get("source") or name.rpartition("-")[0],
            "subject": _first(record.get("subject") or record.get("category")),
        }
    )


LAYOUTS: dict[str, Layout] = {
    "jsonl": Layout(raw_records, lambda record, name: record),
    "gsm8k": Layout(raw_records, from_gsm8k),
    "math": Layout(raw_records, from_math),
    "deepscaler": Layout(raw_records, from_deepscaler),
    "math_folder": Layout(lambda folder: folder_records(folder, "*.json"), from_math, is_folder=True),
    "virl39k": Layout(raw_records, from_virl39k),
    "geometry3k": Layout(raw_records, from_geometry3k_parquet),
    "geometry3k_folder": Layout(read_geometry3k, from_geometry3k, is_folder=True),
    "fields": Layout(raw_records, from_fields),
}


def _typed(question: str, answer: str, choices: tuple[str, ...] = (), said: Any = None) -> Record:
    """The answer, its type and the choices; options inside the question are cut out when the answer is a letter."""
    answer = answer.strip()
    letter = re.fullmatch(r"\(?([A-J])[).]?", answer)
    if not choices and letter and said in (None, "choice"):
        question, choices = split_options(question)
    if choices:
        if letter and CHOICE_LETTERS.index(letter[1]) < len(choices):
            answer = letter[1]
        elif [option.strip() for option in choices].count(answer) == 1:
            answer = CHOICE_LETTERS[[option.strip() for option in choices].index(answer)]
        else:
            raise DataError(
                f"`answer` is {answer[:40]!r}, neither a letter nor the text of one of {len(choices)} options"
            )
        return {"question": question, "answer": answer, "answer_type": "choice", "choices": list(choices)}
    kind = said if said in ANSWER_TYPES else "string" if _is_words(answer) or letter else "math"
    return {"question": question, "answer": answer, "answer_type": kind}


def _is_words(answer: str) -> bool:
    """Plain words, as `yes` or `New York`; a single letter is a variable, and a backslash or digit is mathematics."""
    return re.fullmatch(r"[^\W\d_]{2,}(?:[ ,.'’-]+[^\W\d_]+)*\.?", answer) is not None


def _turns(record: Record) -> tuple[str | None, str | None, list[Any]]:
    """The user's text, the assistant's text and the images of `conversations` or `messages`, in any usual form."""
    turns = record.get("conversations") or record.get("messages") or []
    message = record.get("message")
    if not turns and (isinstance(message, list) or (isinstance(message, str) and message.lstrip().startswith("["))):
        turns = message
    if isinstance(turns, str):
        try:
            turns = decode_json(turns.encode("utf-8", "surrogatepass"))
        except DataError as error:
            raise DataError(f"`messages` is a text, but {error}") from error
    asked = answered = None
    shown: list[Any] = []
    for turn in _list(turns):
        if not isinstance(turn, dict):
            raise DataError(f"a turn of the conversation is a {type(turn).__name__}, not an object")
        role, content = turn.get("role") or turn.get("from"), turn.get("content") or turn.get("value") or ""
        if isinstance(content, list):
            parts = [part for part in content if isinstance(part, dict)]
            shown += [part["image"] for part in parts if part.get("type") == "image" and part.get("image")]
            texts = [str(part.get("text") or "") for part in parts]
            # Some sets write the marks into the text as well as giving the pictures as parts.
            mark = "" if any("<image>" in text for text in texts) else "<image>"
            content = "".join(
                mark if part.get("type") == "image" else text for part, text in zip(parts, texts, strict=True)
            )
        if not isinstance(content, str):
            raise DataError(f"the content of a turn is a {type(content).__name__}, not a text or a list of parts")
        if role in ("user", "human") and asked is None:
            asked = content
        elif role in ("assistant", "gpt"):
            answered = content
    return asked, last_boxed(answered) or _tagged(answered) or answered if answered else None, shown


def _tagged(text: str) -> str | None:
    found = re.findall(r"<answer>(.*?)</answer>", text, re.DOTALL)
    return found[-1].strip() if found else None


def _picture(item: Any) -> str | bytes:
    if isinstance(item, dict):
        item = item["bytes"] if item.get("bytes") is not None else item.get("path")
    if isinstance(item, str):
        return item.removeprefix("file://")
    if not isinstance(item, bytes):
        raise DataError(f"an image is a {type(item).__name__}, neither a path nor encoded bytes")
    return item


def _unboxed(answer: str) -> str:
    inner = last_boxed(answer)
    return answer if inner is None else inner


def _text(record: Record, key: str) -> str:
    value = record.get(key)
    if not isinstance(value, str):
        raise DataError(f"`{key}` is missing" if value is None else f"`{key}` is a {type(value).__name__}, not a text")
    return value


def _first_of(record: Record, keys: tuple[str, ...]) -> Any:
    return next((record[key] for key in keys if record.get(key) is not None), None)


def _list(value: Any) -> list[Any]:
    """A list as it is, nothing as no items, anything else as its only item."""
    return value if isinstance(value, list) else [] if value is None else [value]


def _first(value: Any) -> str | None:
    if isinstance(value, list):
        value = value[0] if value else None
    return value if isinstance(value, str) else None
