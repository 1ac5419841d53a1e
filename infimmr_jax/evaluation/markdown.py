"""Markdown tables of benchmark results, in the layout of the paper's table with the paper's numbers beside them."""

from __future__ import annotations

from collections.abc import Sequence

from infimmr_jax.evaluation.benchmarks import BENCHMARKS
from infimmr_jax.names import JsonObject

# The paper's numbers (arXiv:2505.23091, abstract) are kept with the benchmarks.
PAPER_NAME = "Infi-MMR-3B (paper)"
PAPER = {name: benchmark.paper for name, benchmark in BENCHMARKS.items() if benchmark.paper is not None}


def results_markdown(results: Sequence[JsonObject]) -> str:
    """One line a model, one column a benchmark (accuracy in percent, 95% interval), then each result's details.

    `results` are what `results.score_responses` gives; those that share a model (`request.model`) share a line.
    """
    names = [name for name in BENCHMARKS if name in PAPER or any(result["benchmark"] == name for result in results)]
    models: dict[str, dict[str, JsonObject]] = {}
    for result in results:
        models.setdefault(_model(result), {})[result["benchmark"]] = result
    lines = _row(["model", *(BENCHMARKS[name].title for name in names)])
    lines += _row(["---", *("---:" for _ in names)])
    lines += _row([PAPER_NAME, *(f"{PAPER[name]:.2f}" if name in PAPER else "–" for name in names)])
    for model, by_name in models.items():
        lines += _row([_cell(model), *(_accuracy(by_name[name]) if name in by_name else "–" for name in names)])
    text = "".join(lines) + (
        "\nAccuracy in percent; in brackets the 95% interval by bootstrap over problems. The paper's numbers are "
        "those of its abstract; which prompts, judge and OlympiadBench subset they come from is not known here.\n"
    )
    return text + "".join(_details(result) for result in results)


def _details(result: JsonObject) -> str:
    request = result.get("request") or {}
    how = "greedy" if request.get("greedy") else f"{result['responses_per_problem']} responses a problem"
    facts = {
        "problems": f"{result['problems']:,}",
        "responses": how if "greedy" in request else f"{result['responses_per_problem']} a problem, stored",
        "prompt": _prompt(result),
        "scoring": result["protocol"],
        "judge": result["judge"],
        "without a readable answer": _percent(result["unformatted"]),
        "cut off by the length limit": _percent(result["truncated"]),
    }
    if request.get("model_sha256"):
        facts["model files"] = f"sha256 {request['model_sha256'][:16]}"
    if result.get("mean_tokens") is not None:
        facts["mean tokens of a response"] = f"{result['mean_tokens']:.1f}"
    if result.get("bad_golds"):
        named = ", ".join(result["bad_golds"][:5]) + (", .." if len(result["bad_golds"]) > 5 else "")
        facts["golds that no response can reach"] = f"{len(result['bad_golds'])}, counted as wrong ({named})"
    facts |= {reason: str(count) for reason, count in result["grader_failures"].items()}
    text = f"\n## {_cell(result['title'])}: {_cell(_model(result))}\n\n"
    text += "".join(f"- {key}: {_cell(value)}\n" for key, value in facts.items())
    if result["responses_per_problem"] > 1:
        ks = list(result["pass_at"])
        text += "\n" + "".join(_row(["k", *ks]) + _row(["---", *("---:" for _ in ks)]))
        for name, key in (("pass@k", "pass_at"), ("maj@k", "maj_at")):
            text += "".join(_row([name, *(_accuracy(result[key][k]) for k in ks)]))
    for key, rows in result["groups"].items():
        text += "\n" + "".join(_row([_cell(key), "problems", "accuracy"]) + _row(["---", "---:", "---:"]))
        for value, row in rows.items():
            text += "".join(_row([_cell(value), f"{row['problems']:,}", _accuracy(row)]))
    if result["summary"]:
        text += "\n" + "".join(_row(["metric", "value"]) + _row(["---", "---:"]))
        text += "".join("".join(_row([_cell(key), f"{value:.4g}"])) for key, value in result["summary"].items())
    return text


def _prompt(result: JsonObject) -> str:
    style = (result.get("request") or {}).get("style", "as stored")
    words = BENCHMARKS[result["benchmark"]].prompts.get(style)
    return f"{style} ({words})" if words else str(style)


def _accuracy(row: JsonObject) -> str:
    return f"{100 * row['accuracy']:.2f} ({100 * row['low']:.1f}–{100 * row['high']:.1f})"


def _model(result: JsonObject) -> str:
    return str((result.get("request") or {}).get("model", "stored responses"))


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _row(cells: Sequence[str]) -> list[str]:
    return [f"| {' | '.join(cells)} |\n"]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
