"""Asking a policy a benchmark's questions: resumable, the same on every repetition, on one or many hosts."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax

from infimmr_jax.data.raw_records import raw_records
from infimmr_jax.data.records import DataError, Problem
from infimmr_jax.evaluation.grading import Graders, Judge
from infimmr_jax.evaluation.items import Benchmark, Grade, Item, Response
from infimmr_jax.evaluation.markdown import results_markdown
from infimmr_jax.evaluation.requests import Request, check_owner
from infimmr_jax.evaluation.results import EvaluationError, score_responses
from infimmr_jax.files import append_rows, complete_lines, json_line, replace_file
from infimmr_jax.names import JsonObject
from infimmr_jax.rollout.policy import ask

Generate = Callable[[list[Problem], int, bool], Sequence[Sequence[str | Response]]]
_IDS = ("id", "sample_index", "pid")
_TEXTS = ("responses", "response", "model_answer")


def run_benchmark(
    benchmark: Benchmark,
    items: Sequence[Item],
    generate: Generate,
    request: Request,
    out: Path,
    graders: Graders,
    judge: Judge | None = None,
    batch_size: int = 64,
    on_batch: Callable[[int, int], None] = lambda done, total: None,
) -> JsonObject:
    """Generate, grade and write `result.json`, `result.md` and `grades.jsonl` to the directory `out`; the result.

    `generate(problems, n, greedy)` gives n responses to every problem. It is always called with the same batches of
    `batch_size` problems in order, so for a resumed evaluation to equal an unbroken one it must derive its randomness
    from these problems (their ids), not from the call. Responses are appended to `responses.jsonl` batch by batch; a
    batch that is there is not asked for again. On many hosts all call this with
    the same arguments and `generate` runs on all of them with the same problems; process 0 writes and returns the
    result, the others return {}. `on_batch(done, total)` is called after each batch. Raises EvaluationError when `out`
    holds responses to another request.
    """
    if request.greedy and request.n != 1:
        raise EvaluationError(f"greedy decoding gives one response a problem, not {request.n}; sample, or ask for one")
    is_first = jax.process_index() == 0
    request = dataclasses.replace(request, settings={**request.settings, "batch_size": batch_size})
    file = out / "responses.jsonl"
    described = request.described(benchmark, items)
    if is_first and not check_owner(out, described):
        write_request(out, described)
    known = stored_responses(file, request.n) if is_first else {}

    def answer(batch: Sequence[Item]) -> list[list[Response]]:
        groups = generate([item.problem(request.style) for item in batch], request.n, request.greedy)
        if len(groups) != len(batch) or any(len(group) != request.n for group in groups):
            raise EvaluationError(
                f"generate gave {len(groups)} groups for {len(batch)} problems of {request.n} responses"
            )
        return [[_response(one) for one in group] for group in groups]

    def record(batch: Sequence[Item], groups: Sequence[list[Response]]) -> None:
        known.update((item.id, group) for item, group in zip(batch, groups, strict=True))
        rows = zip(batch, ([dataclasses.asdict(one) for one in group] for group in groups), strict=True)
        append_rows(file, ({"id": item.id, "responses": responses} for item, responses in rows))

    done = [item.id in known for item in items]
    ask(items, done, batch_size, answer, record, lambda passed: on_batch(passed, len(items)))
    if not is_first:
        return {}
    result, grades = score_responses(benchmark, items, known, graders, judge)
    result["request"] = {key: value for key, value in described.items() if key != "benchmark"}
    write_results(out, items, result, grades)
    return result


def write_request(out: Path, described: JsonObject) -> None:
    """Make the directory `out` that of a request."""
    replace_file(out / "request.json", json.dumps(described, indent=2, sort_keys=True) + "\n")


def write_results(out: Path, items: Sequence[Item], result: JsonObject, grades: Sequence[Sequence[Grade]]) -> None:
    """Write result.json, result.md and grades.jsonl; equal arguments give equal bytes."""
    rows = [
        {"id": item.id, "gold": item.gold["answer"], "grades": [dataclasses.asdict(grade) for grade in row]}
        for item, row in zip(items, grades, strict=True)
    ]
    replace_file(out / "grades.jsonl", b"".join(map(json_line, rows)))
    replace_file(out / "result.md", results_markdown([result]))
    replace_file(out / "result.json", json.dumps(result, ensure_ascii=False, indent=2, sort_keys=True) + "\n")


def stored_responses(path: Path, n: int) -> dict[str, list[Response]]:
    """Read the responses written so far, by item; a last line that a kill cut short is left out."""
    if not path.exists():
        return {}
    try:
        rows = [json.loads(line) for line in complete_lines(path)]
        return {row["id"]: [Response(**one) for one in row["responses"]] for row in rows if len(row["responses"]) == n}
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{path} holds a line that this program did not write ({error}): choose another --out, or remove this one"
        ) from error


def read_responses(path: Path, items: Sequence[Item]) -> dict[str, list[Response]]:
    """Read responses that somebody stored: .jsonl, .json or .parquet rows with an id and `response` or `responses`.

    The benchmarks' own output forms are read too: `sample_index` and `model_answer` (MathVerse), an object by pid
    (MathVista), `ID` and `key` (We-Math). Several rows of one id are several responses to it. Raises DataError, naming
    the row, when one has neither, and EvaluationError when no id is one of the benchmark's.
    """
    stored: dict[str, list[Response]] = {}
    for number, row in raw_records(path):
        where = f"{path}, row {number}"
        if isinstance(row, DataError):
            raise DataError(f"{where}: {row}")
        if not isinstance(row, dict):
            raise DataError(f"{where}: the row is a {type(row).__name__}, not an object with an id and a response")
        composite = f"{row['ID']}/{row['key']}" if "ID" in row and "key" in row else None
        identity = composite or next((str(row[key]) for key in _IDS if key in row), None)
        text = next((row[key] for key in _TEXTS if row.get(key) is not None), None)
        if identity is None or text is None:
            raise DataError(f"{where}: needs a key of {', '.join(_IDS)} and one of {', '.join(_TEXTS)}")
        several = text if isinstance(text, list) else [text]
        stored.setdefault(identity, []).extend(_stored_response(one, where) for one in several)
    if not stored:
        raise EvaluationError(f"{path} holds no responses")
    ids = {item.id for item in items}
    if not ids & stored.keys():
        raise EvaluationError(
            f"{path}: no id is one of the benchmark's (found {next(iter(stored))!r}, expected like {items[0].id!r})"
        )
    return {identity: responses for identity, responses in stored.items() if identity in ids}


def _stored_response(value: object, where: str) -> Response:
    if isinstance(value, Mapping) and isinstance(value.get("text"), str):
        truncated, tokens = value.get("truncated", False), value.get("tokens")
        if isinstance(truncated, bool) and (tokens is None or isinstance(tokens, int)):
            return Response(value["text"], truncated, tokens)
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        return Response(str(value))
    raise DataError(
        f"{where}: a response must be a text, or an object with `text` (and `truncated`, true or false, and `tokens`, "
        f"a whole number), not {str(value)[:80]!r}"
    )


def _response(value: str | Response) -> Response:
    return value if isinstance(value, Response) else Response(value)
