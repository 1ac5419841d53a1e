"""The page's tables and headline numbers, as texts and bar positions."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence

from infimmr_jax.report.page_data import Json
from infimmr_jax.report.reading import MODALITIES, Run, flatten

# Counters of a step that are 0 when all is well, and what they mean.
COUNTED = {
    "grading/judge_failures": "The judge gave no verdict on {} answers",
    "grading/function_failures": "A reward function of yours failed on {} groups",
    "grading/timeouts": "Graders ran out of time on {} answers, which scored 0",
    "grading/crashes": "Graders died or failed on {} answers, which scored 0",
    "grading/out_of_memory": "Graders ran out of memory on {} answers, which scored 0",
    "grading/bad_rewards": "{} rewards were no numbers or far too large, and their groups taken out of training",
}


def results_table(run: Run) -> Json | None:
    """Stages by modalities with accuracy, interval and format rate, and the gain of the last stage over stage 0.

    Stages before the end of the cold start have negative indices: what they reached is shown, but is no base of a gain.
    """
    stages = dict(sorted((row["stage_index"], str(row.get("stage"))) for row in run.evals))
    if not stages:
        return None
    present = [name for name in MODALITIES if any(row.get("modality") == name for row in run.evals)]
    at = {(row["stage_index"], row.get("modality")): row for row in run.evals}
    columns = []
    for name in present:
        counts = sorted({row["problems"] for row in run.evals if row.get("modality") == name and "problems" in row})
        columns.append({"name": MODALITIES[name], "problems": " / ".join(f"{count:,}" for count in counts) or "?"})
    rows = [
        {"stage": stage, "cells": [_cell(at.get((index, name))) for name in present]} for index, stage in stages.items()
    ]
    first, last = first_stage(stages), max(stages)
    gains = [_gain(at.get((first, name)), at.get((last, name))) for name in present] if first != last else []
    return {"columns": columns, "rows": rows, "gains": gains, "base": stages[first]}


def first_stage(indexes: Iterable[int]) -> int:
    """The stage that gains are counted from: where the first phase begins, or the first there is."""
    found = sorted(indexes)
    return next((index for index in found if index >= 0), found[0])


def comparison_table(runs: Sequence[Run], names: Sequence[str]) -> Json:
    """Runs by modalities: accuracy after each run's last stage, with the gain over its first stage."""
    present = [name for name in MODALITIES if any(row.get("modality") == name for run in runs for row in run.evals)]
    rows = []
    for run_name, run in zip(names, runs, strict=True):
        table = {(row["stage_index"], row.get("modality")): row for row in run.evals}
        indexes = sorted({index for index, _ in table})
        cells = []
        for name in present:
            cell = _cell(table.get((indexes[-1], name))) if indexes else None
            if cell and len(indexes) > 1:
                gain = _gain(table.get((first_stage(indexes), name)), table.get((indexes[-1], name)))
                cell["gain"] = gain["text"]
            cells.append(cell)
        stage = next((str(row.get("stage")) for row in run.evals if indexes and row["stage_index"] == indexes[-1]), "")
        rows.append({"name": run_name, "stage": f"after {stage}" if stage else "not evaluated yet", "cells": cells})
    return {"columns": [MODALITIES[name] for name in present], "rows": rows}


def tiles(run: Run) -> list[dict[str, str]]:
    """The headline numbers: accuracy from the first to the last stage, steps, responses, time."""
    found = []
    for modality, name in reversed(MODALITIES.items()):
        rows = sorted((row for row in run.evals if row.get("modality") == modality), key=lambda row: row["stage_index"])
        rows = [row for row in rows if row["stage_index"] >= 0] or rows
        if rows:
            first, last = rows[0]["accuracy"], rows[-1]["accuracy"]
            value = f"{100 * first:.1f} → {100 * last:.1f}%" if len(rows) > 1 else f"{100 * last:.1f}%"
            tone = "" if len(rows) == 1 else _tone(rows[0], rows[-1])
            found.append({"value": value, "label": f"{name}: held-out accuracy", "tone": tone})
    steps = steps_done(run)
    if steps:
        planned = run.steps_planned
        value = f"{steps:,}" if planned in (None, steps) else f"{steps:,} / {planned:,}"
        found.append({"value": value, "label": f"GRPO steps in {len(run.phases)} phases", "tone": ""})
    sampled = sampled_responses(run)
    if sampled:
        found.append({"value": f"{sampled:,}", "label": "responses sampled and graded", "tone": ""})
    seconds = math.fsum(_numbers([*run.sft, *run.grpo], "time/step"))
    if seconds:
        found.append({"value": _duration(seconds), "label": "in training steps", "tone": ""})
    return found


def status(run: Run) -> str:
    """One line: what run it is and how far it came."""
    parts = []
    if run.config.get("name") and run.config["name"] != run.name:
        parts.append(str(run.config["name"]))
    model = run.config.get("model") or {}
    if model:
        parts.append(f"model {model['path']}" if model.get("path") else "model made from scratch")
    if "seed" in run.config:
        parts.append(f"seed {run.config['seed']}")
    done, planned = steps_done(run), run.steps_planned
    if planned is not None:
        # A phase may end before its steps.
        over = done >= planned or (run.ending is not None and run.ending["status"] == 0)
        parts.append(f"finished: {done} steps" if over else f"not finished: {done} of {planned} GRPO steps so far")
    elif done:
        parts.append(f"{done} GRPO steps so far")
    return " · ".join(parts)


def steps_done(run: Run) -> int:
    return len({row.get("step") for row in run.grpo})


def sampled_responses(run: Run) -> int | None:
    """Responses of the steps made so far, None where the configuration does not tell."""
    sizes = {}
    for phase in run.config.get("phases") or []:
        prompts, group = phase.get("prompts_per_step"), phase.get("group_size")
        if isinstance(prompts, int) and isinstance(group, int):
            sizes[str(phase.get("name"))] = prompts * group
    steps = {(str(row.get("phase")), row.get("step")) for row in run.grpo}
    if not steps or any(phase not in sizes for phase, _ in steps):
        return None
    return sum(sizes[phase] for phase, _ in steps)


def health_notes(run: Run) -> list[str]:
    """Sentences about what a person should look at before believing the numbers."""
    notes = []
    bad = sum(any(value is None for value in row.values()) for row in [*run.sft, *run.grpo])
    if bad:
        notes.append(f"{bad} metrics rows hold a value that is not finite (NaN or infinity).")
    notes += _ending_notes(run) + _counted_notes(run)
    recent = run.grpo[-max(10, len(run.grpo) // 10) :]
    checks: list[tuple[str, Callable[[float], bool], str]] = [
        ("response/truncated", lambda x: x > 0.25, "{:.0%} of the latest responses are cut off by the length limit."),
        (
            "response/signal_groups",
            lambda x: x < 0.1,
            "Only {:.0%} of the latest groups have unequal rewards to learn from.",
        ),
        ("policy/mismatch", lambda x: x > 0.05, "Sampler and trainer log-probs differ by {:.3f} nats on average."),
        ("reward/format", lambda x: x < 0.5, "Only {:.0%} of the latest responses are well-formed."),
    ]
    for key, is_odd, sentence in checks:
        values = _numbers(recent, key)
        if values and is_odd(statistics.fmean(values)):
            notes.append(sentence.format(statistics.fmean(values)))
    return notes


def _ending_notes(run: Run) -> list[str]:
    if run.ending is not None and run.ending["status"]:
        return [f"The run ended with status {run.ending['status']}: {run.ending['reason']}"]
    return []


def _counted_notes(run: Run) -> list[str]:
    """Say what went wrong in single steps, where something did."""
    rows = [*run.sft, *run.grpo]
    notes = []
    skipped = sum(value > 0 for value in _numbers(rows, "policy/skipped"))
    if skipped:
        notes.append(f"{skipped:,} of {len(rows):,} updates were skipped: their loss or gradient was not finite.")
    for key, sentence in COUNTED.items():
        count = math.fsum(_numbers(run.grpo, key))
        if count:
            steps = sum(value > 0 for value in _numbers(run.grpo, key))
            notes.append(sentence.format(f"{count:,.0f}") + f" (in {steps:,} of {len(run.grpo):,} steps).")
    return notes


def setup_rows(environment: Json) -> list[tuple[str, str]]:
    """The environment as (key, text), nested keys joined by dots and lists by commas."""
    joined = {
        key: ", ".join(map(str, value)) if isinstance(value, list) and not any(map(_nested, value)) else value
        for key, value in environment.items()
    }
    return [(key, str(value)) for key, value in flatten(joined).items()]


def _nested(value: object) -> bool:
    return isinstance(value, dict | list)


def _cell(row: Json | None) -> Json | None:
    if row is None:
        return None
    low, high = _interval(row)
    formed = row.get("format_rate")
    return {
        "accuracy": f"{100 * row['accuracy']:.1f}%",
        "interval": f"{100 * low:.1f}–{100 * high:.1f}",
        "at": round(100 * row["accuracy"], 1),
        "low": round(100 * low, 1),
        "width": round(100 * (high - low), 1),
        "formed": f"{100 * formed:.0f}%" if isinstance(formed, int | float) else "",
        "gain": "",
    }


def _gain(first: Json | None, last: Json | None) -> dict[str, str]:
    if first is None or last is None:
        return {"text": "–", "tone": ""}
    gain = 100 * (last["accuracy"] - first["accuracy"])
    return {"text": f"{gain:+.1f} points", "tone": _tone(first, last)}


def _tone(first: Json, last: Json) -> str:
    """Choose the colour of a change: none where the 95% intervals overlap, for it may be chance."""
    (low, high), (next_low, next_high) = _interval(first), _interval(last)
    return "up" if next_low > high else "down" if next_high < low else ""


def _interval(row: Json) -> tuple[float, float]:
    ends = [row[key] if isinstance(row.get(key), int | float) else row["accuracy"] for key in ("low", "high")]
    return ends[0], ends[1]


def _numbers(rows: list[Json], key: str) -> list[float]:
    return [row[key] for row in rows if isinstance(row.get(key), int | float)]


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return (
        f"{seconds:.0f}s"
        if seconds < 90
        else f"{minutes} min"
        if minutes < 120
        else f"{minutes // 60}h{minutes % 60:02d}"
    )
