"""Asking a policy a benchmark's questions: resumable, the same on every repetition, on one or many hosts."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from infimmr_jax.data.raw_records import raw_records
from infimmr_jax.data.records import DataError, Problem
from infimmr_jax.evaluation.grading import Graders, Judge
from infimmr_jax.evaluation.items import Benchmark, Grade, Item, Response
from infimmr_jax.evaluation.markdown import results_markdown
from infimmr_jax.evaluation.requests import Request, check_owner
from infimmr_jax.evaluation.results import EvaluationError, score_responses

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
) -> dict[str, Any]:
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
    done = _from_first(np.array([item.id in known for item in items], bool))
    for start in range(0, len(items), batch_size):
        batch = items[start : start + batch_size]
        if done[start : start + batch_size].all():
            continue
        found = generate([item.problem(request.style) for item in batch], request.n, request.greedy)
        if len(found) != len(batch) or any(len(row) != request.n for row in found):
            raise EvaluationError(
                f"generate gave {len(found)} groups for {len(batch)} problems of {request.n} responses"
            )
        answered = {item.id: [_response(one) for one in row] for item, row in zip(batch, found, strict=True)}
        # A kill may have cut a batch in two: what it left is asked with the rest, as it was, and kept.
        rows = {name: row for name, row in answered.items() if name not in known}
        if is_first:
            known |= rows
            _append(file, rows)
        on_batch(start + len(batch), len(items))
    if not is_first:
        return {}
    result, grades = score_responses(benchmark, items, known, graders, judge)
    result["request"] = {key: value for key, value in described.items() if key != "benchmark"}
    write_results(out, items, result, grades)
    return result


def write_request(out: Path, described: dict[str, Any]) -> None:
    """Make the directory `out` that of a request."""
    out.mkdir(parents=True, exist_ok=True)
    _replace(out / "request.json", json.dumps(described, indent=2, sort_keys=True) + "\n")


def write_results(out: Path, items: Sequence[Item], result: dict[str, Any], grades: Sequence[Sequence[Grade]]) -> None:
    """Write result.json, result.md and grades.jsonl; equal arguments give equal bytes."""
    out.mkdir(parents=True, exist_ok=True)
    rows = [
        {"id": item.id, "gold": item.gold["answer"], "grades": [dataclasses.asdict(grade) for grade in row]}
        for item, row in zip(items, grades, strict=True)
    ]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    _replace(out / "grades.jsonl", lines)
    _replace(out / "result.md", results_markdown([result]))
    _replace(out / "result.json", json.dumps(result, ensure_ascii=False, indent=2, sort_keys=True) + "\n")


def stored_responses(path: Path, n: int) -> dict[str, list[Response]]:
    """Responses written so far, by item; the torn last line of a kill is cut from the file."""
    if not path.exists():
        return {}
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        path.write_bytes(whole)
    try:
        rows = [json.loads(line) for line in whole.splitlines()]
        return {row["id"]: [Response(**one) for one in row["responses"]] for row in rows if len(row["responses"]) == n}
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{path} holds a line that this program did not write ({error}): choose another --out, or remove this one"
        ) from error


def read_responses(path: Path, items: Sequence[Item]) -> dict[str, list[Response]]:
    """Responses that somebody stored: .jsonl, .json or .parquet rows with an id and `response` or `responses`.

    The benchmarks' own output forms are read too: `sample_index` and `model_answer` (MathVerse), an object by pid
    (MathVista), `ID` and `key` (We-Math). Several rows of one id are several responses to it. Raises DataError, naming
    the row, when one has neither, and EvaluationError when no id is one of the benchmark's.
    """
    found: dict[str, list[Response]] = {}
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
        found.setdefault(identity, []).extend(_stored_response(one, where) for one in several)
    if not found:
        raise EvaluationError(f"{path} holds no responses")
    ids = {item.id for item in items}
    if not ids & found.keys():
        raise EvaluationError(
            f"{path}: no id is one of the benchmark's (found {next(iter(found))!r}, expected like {items[0].id!r})"
        )
    return {identity: responses for identity, responses in found.items() if identity in ids}


def _stored_response(value: Any, where: str) -> Response:
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


def _from_first(done: np.ndarray) -> np.ndarray:
    """Process 0's array on every process: hosts must agree on what is left, or their collectives would not match."""
    return np.asarray(multihost_utils.broadcast_one_to_all(done)) if jax.process_count() > 1 else done


def _response(value: str | Response) -> Response:
    return value if isinstance(value, Response) else Response(value)


def _append(path: Path, rows: dict[str, list[Response]]) -> None:
    with path.open("ab") as file:
        for identity, responses in rows.items():
            row = {"id": identity, "responses": [dataclasses.asdict(response) for response in responses]}
            file.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n")


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8", errors="replace")
    partial.rename(path)
