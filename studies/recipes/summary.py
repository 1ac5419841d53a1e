"""Tables of the recipes study, from the runs' `evals.jsonl` and `metrics.jsonl`."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from infimmr_jax.training.statistics import wilson

MODALITIES = ("text", "caption", "image")
BEGIN, END = "<!-- begin of what the command writes -->", "<!-- end of what the command writes -->"
CHANGES = {
    "apo": "KL eased on hard questions, over-long wrong answers weigh more, sequence mean",
    "dapo": "clip-higher, no KL, accuracy alone, dynamic sampling, soft over-long penalty, G 16",
    "dr_grpo": "no division by the std, constant denominator, no KL",
    "gspo": "sequence ratio, sequence mean, no KL, G 16",
    "infi_mmr": "GRPO with KL .01 (the reference row)",
    "lite_ppo": "std of the batch, no KL",
    "lmm_r1": "REINFORCE++-baseline, KL .001, G 16",
    "observe_r1": "groups weighed 4 sigma p(1-p), bonus for the shortest right answer, KL in the reward",
    "onethinker": "running std a task, groups without signal dropped, no KL",
    "openvlthinker": "accuracy alone, KL .01, G 5, vision tower frozen in phases 1 and 2",
    "papo": "masked-image term .02, KL .01, G 5",
    "rl_with_cold_start": "accuracy alone, KL .01, T .7, top-p .99, G 10",
    "skywork_r1v3": "KL .001, merger alone in phase 3",
    "vision_r1": "hard-AND reward, G 16/8/4 with lengths 32/40/48",
    "vl_cogito": "groups weighed easy/medium/hard, length and repetition terms in phase 3, G 16",
    "x_reasoner": "accuracy alone, clip-higher, no KL",
}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One finished run: held-out rows in order, and its GRPO rows."""

    recipe: str
    seed: int
    evals: list[dict[str, Any]]
    steps: list[dict[str, Any]]


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def finished(output: Path) -> list[Outcome]:
    """Every finished run; `cold` is the cold start's evaluation, which all recipes start from."""
    found = []
    for folder in sorted(output.glob("seed*")):
        for run in sorted(folder.iterdir()):
            if (run / "model" / "config.json").exists():
                evals = _rows(run / "evals.jsonl")
                steps = [row for row in _rows(run / "metrics.jsonl") if row["kind"] == "grpo"]
                if run.name == "cold":
                    steps, evals = [], [row for row in evals if row["stage_index"] == 0]
                found.append(Outcome(run.name, int(folder.name.removeprefix("seed")), evals, steps))
    return found


def accuracy(runs: Sequence[Outcome], modality: str, stage: int | None) -> str:
    """Share of right answers after a stage (None: the last): of one seed with Wilson's 95% interval, else the mean and
    every seed's.
    """
    rows = []
    for run in sorted(runs, key=lambda run: run.seed):
        mine = [row for row in run.evals if row["modality"] == modality]
        rows += [mine[-1]] if stage is None else [row for row in mine if row["stage_index"] == stage]
    shares = [100 * row["correct"] / row["problems"] for row in rows]
    if len(rows) > 1:
        return f"{np.mean(shares):.1f} ({', '.join(f'{share:.0f}' for share in shares)})"
    low, high = wilson(rows[0]["correct"], rows[0]["problems"])
    return f"{shares[0]:.1f} ({100 * low:.0f}–{100 * high:.0f})"


def last_table(outcomes: Sequence[Outcome]) -> str:
    """Accuracy after the last phase, and what it cost."""
    head = ["recipe", "changes", *MODALITIES, "length, image", "sampled responses", "trained tokens", "seconds a step"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for recipe in ("cold", "infi_mmr", *(name for name in CHANGES if name != "infi_mmr")):
        runs = [outcome for outcome in outcomes if outcome.recipe == recipe]
        if not runs:
            continue
        cells = [accuracy(runs, modality, None) for modality in MODALITIES]
        image = [[row for row in run.evals if row["modality"] == "image"][-1] for run in runs]
        cells.append(f"{np.mean([row['length'] for row in image]):.1f}")
        steps = [row for run in runs for row in run.steps]
        if steps:
            cells.append(f"{sum(row['grading/graded'] for row in steps) / len(runs) / 1e3:,.1f} k")
            cells.append(f"{sum(row['rollout/tokens'] for row in steps) / len(runs) / 1e3:,.0f} k")
            # Other work on the machine can only add to them.
            cells.append(f"{min(np.median([row['time/step'] for row in run.steps]) for run in runs):.1f}")
        else:
            cells += ["–"] * 3
        name = "cold start only" if recipe == "cold" else f"`{recipe}`"
        lines.append(f"| {name} | {CHANGES.get(recipe, 'where all start')} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def phase_table(outcomes: Sequence[Outcome]) -> str:
    """Accuracy and length after each phase."""
    head = ["recipe", "after", *MODALITIES, "length (text, caption, image)"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for recipe in CHANGES:
        runs = [outcome for outcome in outcomes if outcome.recipe == recipe]
        stages = sorted({row["stage_index"] for run in runs for row in run.evals} - {0})
        for stage in stages:
            here = [row for run in runs for row in run.evals if row["stage_index"] == stage]
            lengths = [np.mean([row["length"] for row in here if row["modality"] == m]) for m in MODALITIES]
            cells = [accuracy(runs, modality, stage) for modality in MODALITIES]
            cells.append(", ".join(f"{length:.1f}" for length in lengths))
            lines.append(f"| `{recipe}` | {here[0]['stage']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def agreement(outcomes: Sequence[Outcome]) -> str:
    """Spearman's rank correlation of the recipes between two seeds, a modality: the mean over pairs of seeds."""
    seeds = sorted({outcome.seed for outcome in outcomes})
    recipes = sorted(set.intersection(*({o.recipe for o in outcomes if o.seed == seed} for seed in seeds)))
    by_name = {(outcome.recipe, outcome.seed): outcome for outcome in outcomes}
    found = []
    for modality in MODALITIES:
        shares = [
            [
                [row for row in by_name[name, seed].evals if row["modality"] == modality][-1]["correct"]
                for name in recipes
            ]
            for seed in seeds
        ]
        pairs = [spearmanr(one, other).statistic for one, other in itertools.combinations(shares, 2)]
        found.append(f"{modality} {np.mean(pairs):.2f}")
    return f"Rank correlation of the {len(recipes)} recipes between seeds: {', '.join(found)}."


def write_document(output: Path, document: Path) -> None:
    """Put the tables between the two marks of the document; what is written around them is left alone."""
    outcomes = finished(output)
    runs = [outcome for outcome in outcomes if outcome.recipe != "cold"]
    seeds = sorted({outcome.seed for outcome in outcomes})
    steps = sorted({len(outcome.steps) for outcome in runs})
    problems = next(row["problems"] for outcome in outcomes for row in outcome.evals)
    counted = " or ".join(map(str, steps))
    shown = "the mean of the seeds, then each" if len(seeds) > 1 else "with Wilson's 95% interval over problems"
    text = f"""{BEGIN}
Seeds {", ".join(map(str, seeds))}; {counted} GRPO steps a recipe; {problems} held-out problems a modality, greedy.
Accuracy in percent, {shown}.{" " + agreement(runs) if len(seeds) > 1 else ""}

{last_table(outcomes)}

{phase_table(runs)}
{END}"""
    old = document.read_text(encoding="utf-8")
    if BEGIN not in old or END not in old:
        raise ValueError(f"{document} lacks the lines {BEGIN} and {END}, between which the tables go; put them in")
    document.write_text(re.sub(re.escape(BEGIN) + ".*" + re.escape(END), lambda _: text, old, flags=re.DOTALL), "utf-8")
