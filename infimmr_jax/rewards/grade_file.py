"""Grade a file of responses: JSONL rows in, the same rows with scores, answers and reasons out."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from infimmr_jax.config import RunConfig
from infimmr_jax.data.answer_forms import FORMS, answer_text
from infimmr_jax.data.records import DataError, Problem
from infimmr_jax.files import json_line, replacing
from infimmr_jax.names import ANSWER_TYPES, JsonObject
from infimmr_jax.rewards.bad_groups import check_rewards
from infimmr_jax.rewards.format import FORMATS
from infimmr_jax.rewards.pool import GraderPool
from infimmr_jax.rewards.router import Scores, score_groups
from infimmr_jax.rewards.verdict import Code

CHUNK = 256
# Verdicts that compared nothing: these rows are named.
NOT_COMPARED: frozenset[Code] = frozenset(
    ("bad_gold", "bad_answer", "bad_form", "timeout", "memory", "crash", "lost", "cancelled")
)
REQUIRED = ("question", "answer", "answer_type", "response")


@dataclasses.dataclass(frozen=True)
class Summary:
    """Of a graded file: number of rows, mean of every component, share of rows with an answer, and the counters.

    `not_compared` names the rows ("row 3", or "row 3 (its id)") whose answer was never compared, by the code of their
    verdict: gold or answer could not be read, or the grader failed.
    """

    rows: int
    means: dict[str, float]
    answered: float
    counters: dict[str, int]
    not_compared: dict[Code, list[str]]


_SENTENCES: dict[Code, str] = {
    "bad_gold": "the gold answer can not be read",
    "bad_answer": "no parser reads the answer",
    "bad_form": "the answer has not the form of its type",
    "timeout": "the grader reached its deadline",
    "memory": "the grader reached its memory limit",
    "crash": "the grader failed",
    "lost": "the grader's process was lost",
}


def not_compared_lines(summary: Summary, most: int = 10) -> list[str]:
    """Say, a line a kind of verdict, in which rows nothing was compared: the first `most` of them by name."""
    lines = []
    for code, names in summary.not_compared.items():
        more = f" and {len(names) - most} more (`code` in the output)" if len(names) > most else ""
        lines.append(f"{_SENTENCES.get(code, code)}: {', '.join(names[:most])}{more}")
    return lines


def grade_file(path: Path, out: Path, config: RunConfig) -> Summary:
    """Grade the rows of a JSONL file and write each back with its scores; the output appears only when complete.

    A row needs `question`, `answer`, `answer_type` and `response`; `choices` for `choice`; answers have the forms of
    training data; `response_format` overrides `prompt.format`; every other key is kept and seen by verifiers and reward
    functions (`verify`, `image_size`, `seen_size`: see `questions.options_of`). Written are `accuracy`, `format`, every
    other component, `reward` (their weighted sum), `extracted`, `code` (the kind of verdict) and
    `reason`. DataError names the file and line of a row
    that can not be used.
    """
    if path.resolve() == out.resolve():
        raise DataError(f"{out} is the input file: choose another place for the graded rows")
    rows = list(_read(path))
    if not rows:
        raise DataError(f"{path} holds no rows")
    sums: Counter[str] = Counter()
    numbers: Counter[str] = Counter()
    counters: Counter[str] = Counter()
    not_compared: defaultdict[Code, list[str]] = defaultdict(list)
    answered = 0
    reward = config.reward
    with (
        GraderPool(reward.workers, reward.deadline_seconds, reward.memory_mb) as pool,
        replacing(out) as file,
    ):
        for start in range(0, len(rows), CHUNK):
            rows_scored = _graded(rows[start : start + CHUNK], config, pool)
            for number, (row, scores) in enumerate(rows_scored, start=start + 1):
                where = f"row {number} ({row['id']})" if "id" in row else f"row {number}"
                graded = {name: float(values[0, 0]) for name, values in scores.components.items()}
                graded["reward"] = float(scores.total[0, 0])
                # Without a verdict of the judge there is no number.
                graded = {name: value for name, value in graded.items() if math.isfinite(value)}
                row |= dict.fromkeys((*scores.components, "reward")) | graded
                row |= {"extracted": scores.extracted[0][0]}
                row |= {"code": scores.codes[0][0], "reason": scores.reasons[0][0]}
                file.write(json_line(row))
                sums.update(graded)
                numbers.update(graded.keys())
                answered += row["extracted"] is not None
                if scores.codes[0][0] in NOT_COMPARED:
                    not_compared[scores.codes[0][0]].append(where)
        counters.update(pool.counters)
    means = {name: total / numbers[name] for name, total in sums.items()}
    return Summary(len(rows), means, answered / len(rows), dict(counters), dict(sorted(not_compared.items())))


def _graded(
    rows: list[tuple[JsonObject, Problem]], config: RunConfig, pool: GraderPool
) -> Iterator[tuple[JsonObject, Scores]]:
    """Score rows format by format, a whole chunk at once so that the workers are kept busy; rows stay in order."""
    formats = [row.get("response_format", config.prompt.format) for row, _ in rows]
    scored: dict[int, Scores] = {}
    for name in sorted(set(formats)):
        places = [i for i, wanted in enumerate(formats) if wanted == name]
        shape = (len(places), 1)
        scores = score_groups(
            [rows[i][1] for i in places],
            [[rows[i][0]["response"]] for i in places],
            np.ones(shape, bool),
            np.asarray([[len(rows[i][0]["response"])] for i in places]),
            config.reward,
            name,
            pool,
        )
        checked = {key: values for key, values in scores.components.items() if key != "judge"}
        check_rewards(checked, [str(rows[i][0].get("id", rows[i][1].id)) for i in places])
        for place, i in enumerate(places):
            scored[i] = Scores(
                {key: values[place : place + 1] for key, values in scores.components.items()},
                scores.total[place : place + 1],
                scores.extracted[place : place + 1],
                scores.reasons[place : place + 1],
                scores.codes[place : place + 1],
                {},
            )
    for i, (row, _) in enumerate(rows):
        yield row, scored[i]


def _read(path: Path) -> Iterator[tuple[JsonObject, Problem]]:
    try:
        lines = path.open("rb")
    except OSError as error:
        raise DataError(f"{path} can not be read: {error.strerror}") from error
    with lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    row = json.loads(line.decode())
                except UnicodeDecodeError as error:
                    raise DataError(f"{path}, line {number}: not valid UTF-8 ({error.reason})") from error
                except ValueError as error:
                    raise DataError(f"{path}, line {number}: not valid JSON ({error})") from error
                yield row, _problem(row, f"{path}, line {number}")


def _problem(row: object, where: str) -> Problem:
    if not isinstance(row, dict):
        raise DataError(f"{where}: the row is a {type(row).__name__}, not an object with keys")
    if row.get("answer_type") in FORMS and row.get("answer") is not None:
        try:
            row = {**row, "answer": answer_text(row["answer"], row["answer_type"])}
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
    for key in REQUIRED:
        if not isinstance(row.get(key), str):
            raise DataError(f"{where}: `{key}` is missing or not a text")
    if row["answer_type"] not in ANSWER_TYPES:
        raise DataError(
            f"{where}: `answer_type` is {row['answer_type']!r}; it must be one of {', '.join(ANSWER_TYPES)}"
        )
    if row.get("response_format", "boxed") not in FORMATS:
        raise DataError(f"{where}: `response_format` is {row['response_format']!r}; known: {', '.join(FORMATS)}")
    choices = row.get("choices") or []
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        raise DataError(f"{where}: `choices` must be a list of texts")
    known = {"id", "question", "answer", "answer_type", "choices", "response"}
    return Problem(
        id=str(row.get("id", where)),
        question=row["question"],
        answer=row["answer"],
        answer_type=row["answer_type"],
        choices=tuple(choices),
        extra={key: value for key, value in row.items() if key not in known},
    )
