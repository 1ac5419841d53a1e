"""Held-out evaluation between the phases: greedy answers, graded by the same rules as in training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from infimmr_jax.config import Modality
from infimmr_jax.data.records import Problem
from infimmr_jax.evaluation.statistics import wilson
from infimmr_jax.parallel.hosts import host_rows, sum_over_hosts
from infimmr_jax.rewards.pool import GraderPool
from infimmr_jax.rewards.router import score_groups
from infimmr_jax.rollout.sampler import Rollouts
from infimmr_jax.training.scoring import response_texts, transcript
from infimmr_jax.training.setup import Setup
from infimmr_jax.training.sinks import Sinks

Sampler = Callable[[Any, Any], Rollouts]
TRANSCRIPTS = 4


def evaluate_stage(
    setup: Setup,
    params: Any,
    sampler: Sampler,
    pool: GraderPool,
    sinks: Sinks,
    stage: str,
    stage_index: int,
    step: int,
) -> list[dict[str, Any]]:
    """Evaluate every held-out set once; writes a row per modality to evals.jsonl and a few transcripts."""
    rows = []
    for modality, problems in setup.evaluation.items():
        counts, shown = _evaluate(setup, params, sampler, pool, modality, problems)
        correct, matching, tokens, cut, worked, total = counts
        low, high = wilson(int(correct), int(total))
        row = {
            "stage": stage,
            "stage_index": stage_index,
            "modality": modality,
            "problems": int(total),
            "correct": int(correct),
            "accuracy": correct / total,
            "low": low,
            "high": high,
            "format_rate": matching / total,
            "length": tokens / total,
            "truncated": cut / total,
            "worked_share": worked / total,
        }
        sinks.evaluation(row)
        rows.append(row)
        for problem, record in shown:
            images = [] if modality == "text" else [sinks.transcript_image(image) for image in problem.images]
            where = {"kind": "eval", "step": step, "phase": stage, "phase_index": stage_index, "modality": modality}
            sinks.transcript({**where, **record, "images": images})
    return rows


def _evaluate(
    setup: Setup, params: Any, sampler: Sampler, pool: GraderPool, modality: Modality, problems: Sequence[Problem]
) -> tuple[np.ndarray, list[tuple[Problem, dict[str, Any]]]]:
    """Sums over all hosts of (correct, format, tokens, cut, worked, problems), and the first few transcripts."""
    config = setup.config
    rows = config.evaluation.batch_size // jax.process_count()
    mine = problems[jax.process_index() :: jax.process_count()]
    sums = np.zeros(6)
    # Accuracy and format are computed whatever the weights; judges and second passes belong to training.
    reward = config.reward.model_copy(update={"weights": {"accuracy": 1.0}})
    shown: list[tuple[Problem, dict[str, Any]]] = []
    # Every process makes the same number of calls, the last ones perhaps on filler rows alone.
    for start in range(0, -(-len(problems) // jax.process_count()), rows):
        chunk = mine[start : start + rows] or mine[:1]
        real = len(mine[start : start + rows])
        prompts = [setup.encode(problem, modality) for problem in chunk]
        rollouts = host_rows(sampler(params, setup.collate(prompts, rows)))
        texts = response_texts(setup.tokenizer, rollouts.tokens, rollouts.mask)[:real]
        if not real:
            continue
        finished, lengths = rollouts.finished[:real], rollouts.lengths[:real]
        scores = score_groups(chunk, texts, finished, lengths, reward, config.prompt.format, pool)
        components = scores.components
        sums += [
            components["accuracy"].sum(),
            components["format"].sum(),
            lengths.sum(),
            (~finished).sum(),
            sum(is_worked(text) for group in texts for text in group),
            real,
        ]
        for row in range(min(TRANSCRIPTS - len(shown), real)):
            record = transcript(chunk[row], prompts[row].text, texts[row], scores, rollouts, row, setup.tokenizer)
            shown.append((chunk[row], record))
    return sum_over_hosts(sums), shown


def is_worked(text: str) -> bool:
    """Whether a response shows a chain of thought: something between <think> and </think>."""
    _, opened, rest = text.partition("<think>")
    inside, closed, _ = rest.partition("</think>")
    return bool(opened and closed and inside.strip())
