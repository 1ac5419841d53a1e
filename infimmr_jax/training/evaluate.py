"""Held-out evaluation between the phases: greedy answers, graded by the same rules as in training."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jaxtyping import PyTree

from infimmr_jax.data.records import Problem
from infimmr_jax.model.trunk import Params
from infimmr_jax.names import JsonObject, Modality
from infimmr_jax.parallel.hosts import host_rows, sum_over_hosts
from infimmr_jax.preprocess.batching import PromptBatch
from infimmr_jax.preprocess.prompts import all_as_seen
from infimmr_jax.rewards.pool import GraderPool
from infimmr_jax.rewards.router import score_groups
from infimmr_jax.rewards.verifiers import right_from
from infimmr_jax.rollout.state import Rollouts
from infimmr_jax.rollout.vocabulary import response_texts
from infimmr_jax.training.scoring import transcript
from infimmr_jax.training.setup import Setup
from infimmr_jax.training.sinks import Sinks
from infimmr_jax.training.statistics import wilson

Sampler = Callable[[Params, PromptBatch], Rollouts]
TRANSCRIPTS = 4


def evaluate_stage(
    setup: Setup,
    params: PyTree,
    sampler: Sampler,
    pool: GraderPool,
    sinks: Sinks,
    stage: str,
    stage_index: int,
    step: int,
) -> list[JsonObject]:
    """Evaluate every held-out set once; writes a row per modality to evals.jsonl and a few transcripts."""
    rows = []
    for modality, problems in setup.evaluation.items():
        numbers, shown = _measured(setup, params, sampler, pool, modality, problems)
        row = {"stage": stage, "stage_index": stage_index, "modality": modality, **numbers}
        sinks.evaluation(row)
        rows.append(row)
        where = {"kind": "eval", "step": step, "phase": stage, "phase_index": stage_index, "modality": modality}
        sinks.transcripts(
            [({**where, **record}, () if modality == "text" else problem.images) for problem, record in shown]
            if setup.share.leads
            else []
        )
    return rows


def _evaluate(
    setup: Setup, params: PyTree, sampler: Sampler, pool: GraderPool, modality: Modality, problems: Sequence[Problem]
) -> tuple[np.ndarray, list[tuple[Problem, JsonObject]]]:
    """Sums over all hosts of (score, right, format, tokens, cut, worked, problems), and the first few transcripts."""
    config, share = setup.config, setup.share
    size = config.evaluation.batch_size
    rows = share.rows(size)
    sums = np.zeros(7)
    # Accuracy and format are computed whatever the weights; judges and second passes belong to training.
    reward = config.reward.model_copy(update={"weights": {"accuracy": 1.0}})
    ends = setup.model.tokens.ends
    shown: list[tuple[Problem, JsonObject]] = []
    # Every process makes the same number of calls, the last ones perhaps on filler rows alone.
    for start in range(0, len(problems), size):
        whole = problems[start : start + size]
        mine = whole[rows.start : rows.stop]
        real, chunk = len(mine), mine or whole[:1]
        prompts = [setup.encode(problem, modality) for problem in chunk]
        others = [setup.measure(problem, modality) for problem in whole] if setup.measure is not None else []
        batch = setup.collate(prompts, len(rows), others)
        if not real:
            batch = dataclasses.replace(batch, row_mask=np.zeros_like(batch.row_mask))
        rollouts = host_rows(sampler(params, batch))
        texts = response_texts(setup.tokenizer, rollouts.tokens, rollouts.mask, ends)[:real]
        if not real:
            continue
        finished, lengths = rollouts.finished[:real], rollouts.lengths[:real]
        seen = all_as_seen(chunk, prompts, setup.model.layout.patch_size)
        scores = score_groups(seen, texts, finished, lengths, reward, config.prompt.format, pool)
        components = scores.components
        sums += [
            components["accuracy"].sum(dtype=np.float64),
            (components["accuracy"][:, 0] >= [right_from(problem.answer_type) for problem in chunk]).sum(),
            components["format"].sum(),
            lengths.sum(),
            (~finished).sum(),
            sum(is_worked(text) for group in texts for text in group),
            real,
        ]
        for row in range(min(TRANSCRIPTS - start - rows.start, real)):
            record = transcript(seen[row], prompts[row].text, texts[row], scores, rollouts, row, setup.tokenizer, ends)
            shown.append((chunk[row], record))
    return sum_over_hosts(sums, share), shown


def heldout_numbers(
    setup: Setup, params: PyTree, sampler: Sampler, pool: GraderPool, modality: Modality, problems: Sequence[Problem]
) -> JsonObject:
    """What a row of evals.jsonl would say of these held-out problems, the same on every host; nothing is written."""
    return _measured(setup, params, sampler, pool, modality, problems)[0]


def _measured(
    setup: Setup, params: PyTree, sampler: Sampler, pool: GraderPool, modality: Modality, problems: Sequence[Problem]
) -> tuple[JsonObject, list[tuple[Problem, JsonObject]]]:
    # An update may still be computed: that is no time of the evaluation.
    jax.block_until_ready(params)
    began = time.monotonic()
    counts, shown = _evaluate(setup, params, sampler, pool, modality, problems)
    score, correct, matching, tokens, cut, worked, total = counts.tolist()
    low, high = wilson(score, int(total))
    numbers = {
        "problems": int(total),
        "correct": int(correct),
        "accuracy": score / total,
        "low": low,
        "high": high,
        "format_rate": matching / total,
        "length": tokens / total,
        "truncated": cut / total,
        "worked_share": worked / total,
        "time/evaluation": time.monotonic() - began,
    }
    return numbers, shown


def is_worked(text: str) -> bool:
    """Whether a response shows a chain of thought: something between <think> and </think>."""
    _, opened, rest = text.partition("<think>")
    inside, closed, _ = rest.partition("</think>")
    return bool(opened and closed and inside.strip())
