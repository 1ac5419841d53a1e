"""From responses to a benchmark's numbers: accuracy with its interval, pass@k, maj@k, breakdowns, dry run."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from infimmr_jax.config import ImageSection
from infimmr_jax.data.pictures import open_image
from infimmr_jax.data.records import DataError
from infimmr_jax.errors import UserError
from infimmr_jax.evaluation.grading import FAILURES, Graders, Judge, judge_items
from infimmr_jax.evaluation.items import Benchmark, Grade, Item, MissingPicture, Response
from infimmr_jax.evaluation.latex_values import UnreadableLatexError, parse
from infimmr_jax.names import JsonObject, JsonValue
from infimmr_jax.training.statistics import bootstrap, maj_at_k, pass_at_k

DIGITS = 6


class EvaluationError(UserError, ValueError):
    """An evaluation can not be made: the message says what is missing and what to do."""


def score_responses(
    benchmark: Benchmark,
    items: Sequence[Item],
    responses: Mapping[str, Sequence[Response]],
    graders: Graders,
    judge: Judge | None = None,
) -> tuple[JsonObject, list[list[Grade]]]:
    """Grade n responses to every item and count: (result as plain JSON, grades per item and response).

    The result depends on nothing but the arguments. `bad_golds` names problems that no response can get right; they
    count as the protocol has it, and the result says so. Accuracy is the mean over problems of the share of right
    responses, with a 95% interval by bootstrap over problems. Raises EvaluationError when an item has no responses, or
    items differ in their number.
    """
    missing = [item.id for item in items if not responses.get(item.id)]
    if not items or missing:
        raise EvaluationError(
            f"{len(missing)} of {len(items)} problems of {benchmark.title} have no response"
            + (f", the first is {missing[0]!r}; answer all, or only the first ones (--limit)" if missing else "")
        )
    counts = {len(responses[item.id]) for item in items}
    if len(counts) > 1:
        fewest = min(items, key=lambda item: len(responses[item.id]))
        raise EvaluationError(
            f"problems have different numbers of responses ({min(counts)} to {max(counts)}; fewest: {fewest.id!r}): "
            "give every problem equally many"
        )
    (n,) = counts
    flat = [(item, response) for item in items for response in responses[item.id]]
    texts = [response.text for _, response in flat]
    if judge is None:
        graded = graders.grade(benchmark.name, [item.gold for item, _ in flat], texts)
    else:
        graded = judge_items(judge, [item for item, _ in flat], texts)
    grades = [graded[start : start + n] for start in range(0, len(graded), n)]
    right = np.array([[grade.correct for grade in row] for row in grades], np.int64)
    scores = right.mean(axis=1)
    everything = [response for _, response in flat]
    tokens = [response.tokens for response in everything if response.tokens is not None]
    summary = benchmark.summary(items, scores.tolist()) if benchmark.summary else {}
    result = {
        "benchmark": benchmark.name,
        "title": benchmark.title,
        "protocol": benchmark.protocol if judge is None else f"judged by {judge.name}",
        "judge": "rules" if judge is None else judge.name,
        "problems": len(items),
        "responses_per_problem": n,
        **_interval(scores),
        "pass_at": {str(k): _interval(pass_at_k(n, right.sum(axis=1), k)) for k in _powers(n)},
        "maj_at": {str(k): _interval([_majority(row, k) for row in grades]) for k in _powers(n)},
        "unformatted": _round(np.mean([grade.extracted is None for grade in graded])),
        "truncated": _round(np.mean([response.truncated for response in everything])),
        "mean_tokens": _round(np.mean(tokens)) if tokens else None,
        "bad_golds": [] if judge is not None else [row["id"] for row in bad_golds(benchmark, items, graders)],
        "grader_failures": dict(sorted(_failures(graded).items())),
        "groups": _breakdowns(benchmark, items, scores),
        "summary": {key: _round(value) for key, value in summary.items()},
        "paper": benchmark.paper,
    }
    return result, grades


def dry_run(benchmark: Benchmark, items: Sequence[Item], graders: Graders) -> JsonObject:
    """Count problems, pictures and groups, decode every picture, and grade every gold answer as a response.

    `bad_golds` are golds that their own protocol does not grade as right, `bad_images` pictures that are missing or can
    not be decoded, `text_golds` the number of mathematical golds that no parser reads, which only equal text matches.
    """
    math = [item for item in items if item.answer_type == "math"]
    readable = graders.apply(readable_latex, [(item.answer,) for item in math])
    bad_images = []
    for item in items:
        for source in item.images:
            if isinstance(source, MissingPicture):
                bad_images.append({"id": item.id, "reason": source.text})
                continue
            try:
                open_image(source, ImageSection())
            except DataError as error:
                bad_images.append({"id": item.id, "reason": str(error)})
    counters: dict[str, Counter[str]] = defaultdict(Counter)
    for item in items:
        for key in benchmark.group_keys:
            counters[key].update(_values(item, key))
    return {
        "benchmark": benchmark.name,
        "problems": len(items),
        "images": sum(len(item.images) for item in items),
        "problems_without_image": sum(not item.images for item in items),
        "answer_types": dict(sorted(Counter(item.answer_type for item in items).items())),
        "groups": {key: dict(sorted(counter.items())) for key, counter in counters.items()},
        "text_golds": sum(not grade.correct for grade in readable),
        "bad_golds": bad_golds(benchmark, items, graders),
        "bad_images": bad_images,
    }


def bad_golds(benchmark: Benchmark, items: Sequence[Item], graders: Graders) -> list[JsonObject]:
    """Find the golds that their own protocol does not grade as right when they are the answer: nobody can earn them."""
    boxed = [f"\\boxed{{{item.gold['answer']}}}" for item in items]
    grades = graders.grade(benchmark.name, [item.gold for item in items], boxed)
    return [
        {"id": item.id, "gold": item.gold["answer"], "reason": grade.reason or f"read as {grade.extracted!r}"}
        for item, grade in zip(items, grades, strict=True)
        if not grade.correct or not str(item.gold["answer"]).strip()
    ]


def readable_latex(text: str) -> Grade:
    """Can the parser read a gold answer?"""
    try:
        parse(text.strip().strip("$"))
    except UnreadableLatexError as error:
        return Grade(False, None, str(error))
    return Grade(True, text)


def _breakdowns(benchmark: Benchmark, items: Sequence[Item], scores: np.ndarray) -> JsonObject:
    table: JsonObject = {}
    for key in benchmark.group_keys:
        places: dict[str, list[int]] = defaultdict(list)
        for index, item in enumerate(items):
            for value in _values(item, key):
                places[value].append(index)
        if places:
            rows = {value: {"problems": len(found), **_interval(scores[found])} for value, found in places.items()}
            table[key] = dict(sorted(rows.items()))
    return table


def _values(item: Item, key: str) -> tuple[str, ...]:
    value = item.groups.get(key, ())
    return (value,) if isinstance(value, str) else value


def _majority(row: Sequence[Grade], k: int) -> float:
    # All right answers equal the gold, hence each other; wrong ones count as the same when their text is.
    votes = ["\0right" if grade.correct else _folded(grade.extracted) for grade in row]
    return maj_at_k(votes, [grade.correct for grade in row], k)


def _folded(text: str | None) -> str | None:
    return None if text is None else "".join(text.split()).lower()


def _powers(n: int) -> list[int]:
    return sorted({1 << power for power in range(n.bit_length()) if 1 << power <= n} | {n})


def _failures(graded: Sequence[Grade]) -> Counter[str]:
    return Counter(failure for grade in graded for failure in FAILURES if grade.reason.startswith(failure))


def _interval(values: JsonValue) -> dict[str, float]:
    mean, low, high = bootstrap(values)
    return {"accuracy": _round(mean), "low": _round(low), "high": _round(high)}


def _round(value: JsonValue) -> float:
    return round(float(value), DIGITS)
