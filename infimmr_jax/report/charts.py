"""Curves of a run as plain chart descriptions, which the page's script hands to uPlot."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from infimmr_jax.names import JsonValue
from infimmr_jax.report.page_data import Json
from infimmr_jax.report.reading import MODALITIES, Run

Values = list[float | None]
SMOOTH_FROM = 40
MAX_POINTS = 1500

# Title, metric keys with their legend text, a line of explanation, and how the y axis is read.
_GRPO_CHARTS: tuple[tuple[str, dict[str, str], str, str], ...] = (
    (
        "Reward",
        {"reward/total": "total", "reward/accuracy": "accuracy", "reward/format": "format"},
        "Mean over the sampled responses.",
        "share",
    ),
    (
        "Learning signal",
        {"response/signal_groups": "groups with unequal rewards", "reward/total_std": "std of reward in a group"},
        "A group whose responses all score the same moves nothing.",
        "share",
    ),
    (
        "Held-out accuracy during training",
        {f"heldout/{modality}": name for modality, name in MODALITIES.items()},
        "Greedy decoding, inside phases.",
        "percent",
    ),
    ("Response length", {"response/length": "tokens"}, "Mean number of sampled tokens.", "number"),
    ("Truncated responses", {"response/truncated": "truncated"}, "Cut off by the length limit.", "percent"),
    ("Entropy", {"policy/entropy": "entropy"}, "Of the policy per token, in nats.", "number"),
    ("KL to the reference", {"policy/kl": "KL"}, "Per token, in nats.", "number"),
    (
        "Clipped tokens",
        {"policy/clip_share": "clipped", "policy/clip_share_low": "below", "policy/clip_share_high": "above"},
        "Share of tokens whose ratio was clipped.",
        "percent",
    ),
    ("Gradient norm", {"policy/grad_norm": "norm"}, "Before clipping.", "log"),
    (
        "Sampler against trainer",
        {"policy/mismatch": "mean |difference|"},
        "Of the log-prob a token was sampled with and the trainer's own, in nats.",
        "number",
    ),
    ("Policy loss", {"loss": "loss"}, "Near zero by construction; its gradient matters.", "number"),
    ("Learning rate", {"optimizer/learning_rate": "learning rate"}, "", "number"),
    ("Rollout efficiency", {"rollout/efficiency": "used decoding slots"}, "1 = no slot ever idle.", "percent"),
    ("Throughput", {"tokens_per_second": "tokens/s"}, "Sampled tokens per second of the whole step.", "number"),
)
_TIMES = {
    "time/rollout": "sampling",
    "time/grade": "grading",
    "time/update": "update",
    "time/input_wait": "waiting for input",
}
# Distributions over the responses of a step: metric key -> title, explanation, legend text and metric of the mean.
_HISTOGRAMS = {
    "histogram/length": ("Lengths of the responses", "In tokens; darker is more.", "mean length", "response/length"),
    "histogram/reward": ("Rewards of the responses", "Darker is more.", "mean reward", "reward/total"),
}
MAX_COLUMNS = 120
_KNOWN = {key for _, keys, _, _ in _GRPO_CHARTS for key in keys} | set(_TIMES) | {"time/step"}
_SFT_TITLES = {
    "loss": "loss per token, in nats",
    "policy/grad_norm": "gradient norm",
    "optimizer/learning_rate": "learning rate",
    "tokens_per_second": "tokens per second",
}
_NO_METRIC = {"time", "kind", "phase", "phase_index", "step", "step_in_phase"}
_COMPARED = ("reward/total", "reward/accuracy", "response/length", "policy/entropy", "policy/kl", "policy/grad_norm")


def run_charts(run: Run) -> dict[str, list[Json]]:
    """Charts of one run by section: `heldout`, `grpo`, `sft`, and `more` for metrics that no section names.

    A chart without data is left out.
    """
    grpo, sft = thin(run.grpo), thin(run.sft)
    return {
        "heldout": _heldout_chart(run),
        "grpo": _grpo_charts(grpo),
        "sft": [
            chart for key, title in _SFT_TITLES.items() for chart in _curves(title, "", "number", sft, {key: title})
        ],
        "more": _other_charts("", grpo, _KNOWN) + _other_charts("cold start: ", sft, set(_SFT_TITLES)),
    }


def comparison_charts(runs: Sequence[Run], names: Sequence[str]) -> list[Json]:
    """The main curves with one line a run, over the global GRPO step."""
    charts = []
    titles = {key: (title, hint, kind) for title, keys, hint, kind in _GRPO_CHARTS for key in keys}
    steps = sorted({row["step"] for run in runs for row in run.grpo if _number(row.get("step")) is not None})
    for key in _COMPARED:
        title, hint, kind = titles[key]
        series = []
        for name, run in zip(names, runs, strict=True):
            at = {row.get("step"): _number(row.get(key)) for row in run.grpo}
            values = [at.get(step) for step in steps]
            if any(value is not None for value in values):
                series.append(_series(name, smooth(values, [0] * len(values))))
        if series:
            title = f"{title}: {key.split('/')[1]}" if title == "Reward" else title
            charts.append(_chart(title, hint, "share" if key == "reward/total" else kind, steps, series, x="step"))
    return charts


def smooth(values: Values, parts: Sequence[object]) -> Values:
    """Centred moving mean over about a twentieth of the points, never across a change in `parts` (the phase)."""
    half = max(1, len(values) // 40)
    numbers = np.array([math.nan if value is None else value for value in values], np.float64)
    result: Values = []
    for index, value in enumerate(values):
        near = [i for i in range(max(0, index - half), min(len(values), index + half + 1)) if parts[i] == parts[index]]
        window = numbers[near]
        window = window[~np.isnan(window)]
        result.append(None if value is None else float(window.mean()))
    return result


def phase_marks(rows: list[Json]) -> list[Json]:
    """Where each phase begins: its first step and its name."""
    marks: list[Json] = []
    for row in rows:
        if not marks or marks[-1]["label"] != str(row.get("phase")):
            marks.append({"at": row.get("step", 0), "label": str(row.get("phase"))})
    return marks


def _grpo_charts(rows: list[Json]) -> list[Json]:
    charts = []
    extra_rewards = [key for key in _other_keys(rows, _KNOWN) if key.startswith("reward/")]
    for title, keys, hint, kind in _GRPO_CHARTS:
        if title == "Reward":
            keys = {**keys, **{key: key.partition("/")[2] for key in extra_rewards}}
        charts += _curves(title, hint, kind, rows, keys)
        if title == "Throughput":
            charts += _time_chart(rows)
    return charts + _heat_charts(rows)


def _other_charts(prefix: str, rows: list[Json], known: set[str]) -> list[Json]:
    keys = [key for key in _other_keys(rows, known) if prefix or not key.startswith("reward/")]
    return [chart for key in keys for chart in _curves(prefix + key, "", "number", rows, {key: key.rpartition("/")[2]})]


def _curves(title: str, hint: str, kind: str, rows: list[Json], keys: dict[str, str]) -> list[Json]:
    parts = [row.get("phase") for row in rows]
    series = []
    for key, label in keys.items():
        values = [_number(row.get(key)) for row in rows]
        if not any(value is not None for value in values):
            continue
        # What is measured now and then is shown as it is.
        rare = sum(value is not None for value in values) < 0.5 * len(values)
        if len(rows) >= SMOOTH_FROM and key != "optimizer/learning_rate" and not rare:
            series.append(_series(label, smooth(values, parts), raw=values))
        else:
            series.append(_series(label, values))
    steps = [row.get("step", index) for index, row in enumerate(rows)]
    return [_chart(title, hint, kind, steps, series, x="step", marks=phase_marks(rows))] if series else []


def _time_chart(rows: list[Json]) -> list[Json]:
    """Seconds of a step by what they were spent on, stacked; what is not accounted for shows as `other`."""
    rows = [row for row in rows if _number(row.get("time/step")) is not None]
    parts = {label: [_number(row.get(key)) or 0.0 for row in rows] for key, label in _TIMES.items()}
    parts = {label: values for label, values in parts.items() if any(values)}
    if not rows or not parts:
        return []
    spent = [sum(column) for column in zip(*parts.values(), strict=True)]
    parts["other"] = [max(0.0, row["time/step"] - part) for row, part in zip(rows, spent, strict=True)]
    chart = _chart(
        "Where the time goes",
        "Seconds per step, stacked.",
        "number",
        [row.get("step", index) for index, row in enumerate(rows)],
        [_series(label, list(values)) for label, values in parts.items()],
        x="step",
        marks=phase_marks(rows),
    )
    # The step that compiles would flatten all others.
    totals = sorted(row["time/step"] for row in rows)
    return [{**chart, "stacked": True, "top": 1.3 * totals[int(0.95 * (len(totals) - 1))]}]


def _heat_charts(rows: list[Json]) -> list[Json]:
    """Distributions over time: a column for a few neighbouring steps, a cell for the share of responses in a bin."""
    charts = []
    for key, (title, hint, label, mean) in _HISTOGRAMS.items():
        # Phases may have other limits of length: the bins that most rows have are drawn, in the widest range.
        known = [row for row in rows if isinstance(row.get(key), dict) and sum(row[key]["counts"]) > 0]
        if not known:
            continue
        low, high = min(row[key]["low"] for row in known), max(row[key]["high"] for row in known)
        bins = len(known[0][key]["counts"])
        every = -(-len(known) // MAX_COLUMNS)
        groups = [known[start : start + every] for start in range(0, len(known), every)]
        columns = [np.sum([_rebinned(row[key], low, high, bins) for row in group], axis=0) for group in groups]
        means = [[value for row in group if (value := _number(row.get(mean))) is not None] for group in groups]
        series = [_series(label, [float(np.mean(values)) if values else None for values in means])]
        chart = _chart(title, hint, "number", [group[0].get("step", 0) for group in groups], series, x="step")
        heat = [[_short(share) for share in column / column.sum()] for column in columns]
        charts.append({**chart, "marks": phase_marks(known), "heat": heat, "range": [low, high]})
    return charts


def _rebinned(histogram: Json, low: float, high: float, bins: int) -> np.ndarray:
    """The counts over `bins` equal bins of [low, high], each old bin spread evenly over the new ones it covers."""
    counts = np.asarray(histogram["counts"], np.float64)
    old = np.linspace(histogram["low"], histogram["high"], len(counts) + 1)
    summed = np.concatenate([[0.0], np.cumsum(counts)])
    return np.diff(np.interp(np.linspace(low, high, bins + 1), old, summed))


def _heldout_chart(run: Run) -> list[Json]:
    stages = dict(sorted((row["stage_index"], str(row.get("stage"))) for row in run.evals))
    if len(stages) < 2:
        return []
    series = []
    for index, (modality, label) in enumerate(MODALITIES.items()):
        at = {row["stage_index"]: row for row in run.evals if row.get("modality") == modality}
        if at:
            columns = [[_number(at.get(stage, {}).get(key)) for stage in stages] for key in ("accuracy", "low", "high")]
            series.append({**_series(label, columns[0]), "low": columns[1], "high": columns[2], "colour": index})
    chart = _chart(
        "Held-out accuracy", "Greedy decoding; the bands are 95% intervals.", "percent", list(stages), series
    )
    return [{**chart, "labels": list(stages.values()), "points": True}]


def thin(rows: list[Json]) -> list[Json]:
    """At most 1,500 rows, evenly spread, so that a long run's page stays light."""
    every = -(-len(rows) // MAX_POINTS)
    return rows[::every] if every > 1 else rows


def _other_keys(rows: list[Json], known: set[str]) -> list[str]:
    """Numeric metrics that no chart names: new metrics appear in the report by themselves."""
    found = dict.fromkeys(key for row in rows for key in row if _number(row[key]) is not None)
    return [key for key in found if key not in known | _NO_METRIC]


def _chart(title: str, hint: str, kind: str, xs: list[JsonValue], series: list[Json], **more: JsonValue) -> Json:
    return {"title": title, "hint": hint, "kind": kind, "xs": xs, "series": series, **more}


def _series(label: str, values: Values, raw: Values | None = None) -> Json:
    series: Json = {"label": label, "values": [_short(value) for value in values]}
    if raw is not None:
        series["raw"] = [_short(value) for value in raw]
    return series


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def _short(value: float | None) -> float | None:
    """Five significant digits are more than a screen shows."""
    return None if value is None else float(f"{value:.5g}")
