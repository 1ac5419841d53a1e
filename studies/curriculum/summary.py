"""Tables and figure of the study, from the runs' `evals.jsonl` and `metrics.jsonl`."""

from __future__ import annotations

import dataclasses
import json
import re
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from studies.curriculum.arms import ARMS, DESCRIPTIONS

MODALITIES = ("text", "caption", "image")
BEGIN, END = "<!-- begin of what the command writes -->", "<!-- end of what the command writes -->"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One finished run: held-out rows by stage and modality, and its training rows."""

    arm: str
    seed: int
    evals: list[dict[str, Any]]
    steps: list[dict[str, Any]]

    def last(self, modality: str, key: str = "accuracy") -> float:
        """The value after the last phase."""
        return next(row[key] for row in reversed(self.evals) if row["modality"] == modality)


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def finished(output: Path) -> Iterator[Outcome]:
    """Every finished arm; `cold` is the cold start's evaluation, the row all arms start from."""
    for folder in sorted(output.glob("seed*")):
        seed = int(folder.name.removeprefix("seed"))
        for arm in ("cold", *ARMS):
            run = folder / arm
            if (run / "model" / "config.json").exists():
                steps = [row for row in _rows(run / "metrics.jsonl") if row["kind"] == "grpo"]
                evals = _rows(run / "evals.jsonl")
                if arm == "cold":
                    steps, evals = [], [row for row in evals if row["stage_index"] == 0]
                yield Outcome(arm, seed, evals, steps)


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and its 95% interval over seeds (Student's t); the interval is the whole line for one seed."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, -np.inf, np.inf
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return mean, mean - half, mean + half


def _percent(values: Sequence[float]) -> str:
    mean, low, high = mean_interval(values)
    each = ", ".join(f"{100 * value:.0f}" for value in values)
    spread = "" if len(values) < 2 else f" ± {50 * (high - low):.1f}"
    return f"**{100 * mean:.1f}**{spread} ({each})"


def accuracy_table(outcomes: Sequence[Outcome]) -> str:
    """Held-out accuracy after the last phase, by arm and modality."""
    lines = ["| arm | " + " | ".join(MODALITIES) + " | length, image | sampled tokens | steps |", "|---" * 7 + "|"]
    for arm in ("cold", *ARMS):
        runs = [outcome for outcome in outcomes if outcome.arm == arm]
        if not runs:
            continue
        name = "cold start only" if arm == "cold" else f"{arm}: {DESCRIPTIONS[arm]}"
        cells = [_percent([run.last(modality) for run in runs]) for modality in MODALITIES]
        length = statistics.fmean(run.last("image", "length") for run in runs)
        tokens = statistics.fmean(sum(row["rollout/tokens"] for row in run.steps) for run in runs)
        steps = ", ".join(str(len(run.steps)) for run in runs)
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {length:.1f} | {tokens / 1e3:,.0f} k | {steps} |")
    return "\n".join(lines)


def difference_table(outcomes: Sequence[Outcome]) -> str:
    """The full curriculum minus each other arm, paired by seed, in points of held-out accuracy."""
    full = {outcome.seed: outcome for outcome in outcomes if outcome.arm == "full"}
    lines = ["| full minus | " + " | ".join(MODALITIES) + " |", "|---" * 4 + "|"]
    for arm in ARMS:
        runs = [outcome for outcome in outcomes if outcome.arm == arm and outcome.seed in full]
        if arm == "full" or not runs:
            continue
        cells = []
        for modality in MODALITIES:
            gaps = [100 * (full[run.seed].last(modality) - run.last(modality)) for run in runs]
            mean, low, high = mean_interval(gaps)
            each = ", ".join(f"{gap:+.0f}" for gap in gaps)
            interval = "" if len(gaps) < 2 else f" [{low:+.1f}, {high:+.1f}]"
            cells.append(f"{round(mean, 1) + 0.0:+.1f}{interval} ({each})")
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def stability_table(outcomes: Sequence[Outcome]) -> str:
    """What training looked like: skipped updates, gradient norm, the deepest fall of the reward inside a phase."""
    lines = [
        "| arm | skipped updates | gradient norm, median / largest | deepest fall of accuracy in a phase | truncated |",
        "|---" * 5 + "|",
    ]
    for arm in ARMS:
        runs = [outcome for outcome in outcomes if outcome.arm == arm]
        if not runs:
            continue
        rows = [row for run in runs for row in run.steps]
        norms = [row["policy/grad_norm"] for row in rows]
        fall = max(deepest_fall(phase) for run in runs for phase in by_phase(run.steps))
        truncated = statistics.fmean(row["response/truncated"] for row in rows)
        skipped = sum(row["policy/skipped"] for row in rows)
        lines.append(
            f"| {arm} | {skipped:.0f} of {len(rows)} | {statistics.median(norms):.2f} / {max(norms):.1f} | "
            f"{100 * fall:.1f} points | {100 * truncated:.1f}% |"
        )
    return "\n".join(lines)


def by_phase(rows: Sequence[dict[str, Any]], key: str = "reward/accuracy") -> list[list[float]]:
    """A metric of every step, split by phase."""
    phases: dict[int, list[float]] = {}
    for row in rows:
        phases.setdefault(row["phase_index"], []).append(row[key])
    return list(phases.values())


def deepest_fall(values: Sequence[float], window: int = 10) -> float:
    """The largest fall of the moving mean below an earlier value of itself."""
    if len(values) <= window:
        return 0.0
    smooth = np.convolve(values, np.full(window, 1 / window), mode="valid")
    return float(np.max(np.maximum.accumulate(smooth) - smooth))


def draw(outcomes: Sequence[Outcome], path: Path) -> None:
    """Held-out accuracy against sampled tokens, a panel a modality; thin lines are seeds."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "curriculum"
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 3, figsize=(10.5, 3.4), sharey=True, layout="constrained")
    cold = {outcome.seed: outcome for outcome in outcomes if outcome.arm == "cold"}
    for panel, modality in zip(panels, MODALITIES, strict=True):
        for number, arm in enumerate(ARMS):
            lines = []
            for run in (outcome for outcome in outcomes if outcome.arm == arm):
                ends = [0.0]
                for phase in by_phase(run.steps, "rollout/tokens"):
                    ends.append(ends[-1] + sum(phase) / 1000)
                rows = [row for row in run.evals if row["modality"] == modality]
                start = cold[run.seed].last(modality) if run.seed in cold else rows[0]["accuracy"]
                points = [start, *(row["accuracy"] for row in rows if row["stage_index"] > 0)]
                lines.append((ends, [100 * point for point in points]))
                panel.plot(*lines[-1], color=f"C{number}", alpha=0.3, linewidth=0.8)
            if lines:
                mean = np.mean([values for _, values in lines], axis=0)
                panel.plot(
                    np.mean([ends for ends, _ in lines], axis=0),
                    mean,
                    color=f"C{number}",
                    marker="o",
                    markersize=3,
                    label=arm,
                )
        panel.set_title(f"{modality} problems", fontsize=10)
        panel.set_xlabel("sampled tokens, thousands")
        panel.grid(alpha=0.25)
    panels[0].set_ylabel("held-out accuracy, %")
    panels[-1].legend(fontsize=8, frameon=False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def write_document(output: Path, document: Path) -> None:
    """Put the tables between the two marks of the document, and the figure beside it; the discussion is left alone."""
    outcomes = list(finished(output))
    figure = document.with_suffix(".svg")
    draw(outcomes, figure)
    seeds = sorted({outcome.seed for outcome in outcomes})
    problems = next(row["problems"] for outcome in outcomes for row in outcome.evals)
    text = f"""{BEGIN}
{len(seeds)} seeds ({", ".join(map(str, seeds))}), {problems} held-out problems a modality.
Cells: mean over the seeds ± half the width of its 95% interval (Student's t over seeds), then every seed.

{accuracy_table(outcomes)}

{difference_table(outcomes)}

Means of the paired differences in points, their 95% interval over seeds, then every seed.

{stability_table(outcomes)}

![Held-out accuracy after each phase]({figure.name})
{END}"""
    old = document.read_text(encoding="utf-8") if document.exists() else f"# Study\n\n{BEGIN}{END}\n"
    if BEGIN not in old or END not in old:
        raise ValueError(f"{document} lacks the lines {BEGIN} and {END}, between which the tables go; put them in")
    new = re.sub(re.escape(BEGIN) + ".*" + re.escape(END), lambda _: text, old, flags=re.DOTALL)
    document.write_text(new, encoding="utf-8")
