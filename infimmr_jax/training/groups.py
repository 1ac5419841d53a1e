"""The groups of a step: batches of prompts drawn, sampled and graded, and which of their groups train."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from infimmr_jax.config import DrawsSection, PhaseSection
from infimmr_jax.data.curriculum import StepBatch
from infimmr_jax.grpo.check import silence_bad_groups
from infimmr_jax.grpo.length_rewards import overlong_rewards
from infimmr_jax.grpo.step import Rewards
from infimmr_jax.parallel.hosts import host_rows, largest_over_hosts, leaders_rows, sum_over_hosts
from infimmr_jax.preprocess.seen import all_as_seen
from infimmr_jax.rewards.router import Scores, score_groups
from infimmr_jax.rollout.sampler import Rollouts
from infimmr_jax.training.programs import tasks_of
from infimmr_jax.training.running import Run
from infimmr_jax.training.scoring import response_texts
from infimmr_jax.training.second_pass import asks_again, policy_generate


@dataclasses.dataclass(frozen=True)
class Groups:
    """Groups of one batch. `rollouts` are the global ones where a sampler made them; all else are this host's rows.

    `bad` are sentences about rewards that are no numbers, `seconds` went into waiting for input, sampling, grading.
    """

    step: StepBatch
    texts: list[list[str]]
    scores: Scores
    rollouts: Rollouts
    local: Rollouts
    rewards: Rewards
    bad: list[str]
    seconds: tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class _Shape:
    """What a bucket is chosen by: the largest prompt and pictures of all hosts."""

    name: str
    length: int
    image_shape: tuple[int, int]


def collect(
    run: Run, batches: Iterator[StepBatch], phase: PhaseSection, key: jax.Array, step: int
) -> tuple[Groups, dict[str, float]]:
    """Draw batches until the step has its groups (`rollout.draws`); returns them with what the drawing was like."""
    draws = phase.rollout.draws
    drawn = [_draw(run, batches, phase, key, step)]
    if draws.at_most == 1:
        return drawn[0], {}
    rows = len(drawn[0].step.problems)
    while len(drawn) < draws.at_most:
        lacking = len(kept_groups([groups.rewards for groups in drawn], draws)[0]) < rows
        if len(drawn) >= draws.at_least and not largest_over_hosts(np.asarray([int(lacking)]))[0]:
            break
        drawn.append(_draw(run, batches, phase, jax.random.fold_in(key, len(drawn)), step))
    kept, dropped = kept_groups([groups.rewards for groups in drawn], draws)
    chosen = (kept + dropped)[:rows]
    accuracy = np.concatenate([groups.rewards.components["accuracy"] for groups in drawn])
    total = np.concatenate([groups.rewards.total for groups in drawn])
    numbers = (min(len(kept), rows), rows, len(kept), len(total), accuracy.mean(1).sum(), total.mean(1).sum())
    sums = sum_over_hosts(np.asarray(numbers, np.float64), run.setup.share)
    filled, wanted, found, groups, right, reward = sums.tolist()
    if filled < wanted:
        run.progress.note(
            f"step {step}: only {filled:.0f} of {wanted:.0f} groups have a signal after {len(drawn)} draws; "
            "the others are filled with groups without"
        )
    metrics = {
        "sampling/draws": float(len(drawn)),
        "sampling/kept_share": found / groups,
        "sampling/filled_share": filled / wanted,
        "sampling/accuracy": right / groups,
        "sampling/reward": reward / groups,
    }
    return assemble(run, drawn, chosen), metrics


def kept_groups(rewards: Sequence[Rewards], draws: DrawsSection) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """The (draw, row) of every group that `draws.drop` keeps, in the order of `draws.keep`; and of those it drops."""
    kept: list[tuple[int, int]] = []
    dropped: list[tuple[int, int]] = []
    for number, drawn in enumerate(rewards):
        total, accuracy = drawn.total, drawn.components["accuracy"].mean(axis=1)
        stays = np.ones(len(total), bool)
        if draws.drop == "equal":
            stays = total.max(axis=1) > total.min(axis=1)
        elif draws.drop == "accuracy":
            stays = (accuracy > (draws.low or 0.0)) & (accuracy < (1.0 if draws.high is None else draws.high))
        for row, stay in enumerate(stays.tolist()):
            (kept if stay else dropped).append((number, row))
    if draws.keep == "spread":
        kept.sort(key=lambda place: -float(rewards[place[0]].total[place[1]].std()))
    return kept, dropped


def assemble(run: Run, drawn: Sequence[Groups], chosen: Sequence[tuple[int, int]]) -> Groups:
    """One batch of the chosen groups, in a shape that the run already has programs for."""
    first = drawn[0].step
    problems = [drawn[d].step.problems[row] for d, row in chosen]
    prompts = [drawn[d].step.prompts[row] for d, row in chosen]
    # Hosts choose different groups and must still agree on the bucket.
    sizes = np.asarray([(prompt.length, *prompt.image_shape) for prompt in prompts]).max(axis=0)
    length, slots, patches = largest_over_hosts(sizes).tolist()
    everyone: Any = [_Shape("of another host", length, (slots, patches))]
    batch = run.setup.collate(prompts, len(prompts), everyone)
    step = dataclasses.replace(
        first,
        problems=problems,
        modalities=[drawn[d].step.modalities[row] for d, row in chosen],
        prompts=prompts,
        batch=batch,
    )

    def picked(*trees: Any) -> Any:
        return jax.tree.map(lambda *leaves: np.stack([leaves[d][row] for d, row in chosen]), *trees)

    local = picked(*(groups.local for groups in drawn))
    executed: Any = np.int32(sum(int(groups.rollouts.executed) for groups in drawn))
    counters: Counter[str] = Counter()
    for groups in drawn:
        counters.update(groups.scores.counters)
    scores = [groups.scores for groups in drawn]
    return Groups(
        step=step,
        texts=[drawn[d].texts[row] for d, row in chosen],
        scores=Scores(
            components=picked(*(one.components for one in scores)),
            total=picked(*(one.total for one in scores)),
            extracted=[scores[d].extracted[row] for d, row in chosen],
            reasons=[scores[d].reasons[row] for d, row in chosen],
            counters=dict(counters),
        ),
        rollouts=dataclasses.replace(local, executed=executed),
        local=local,
        rewards=picked(*(groups.rewards for groups in drawn)),
        bad=[sentence for groups in drawn for sentence in groups.bad],
        seconds=tuple(np.sum([groups.seconds for groups in drawn], axis=0).tolist()),
    )


def _draw(run: Run, batches: Iterator[StepBatch], phase: PhaseSection, key: jax.Array, step: int) -> Groups:
    """Sample and grade the next batch; groups with a reward that is no number are taken out, and said."""
    setup = run.setup
    began = time.monotonic()
    drawn = dataclasses.replace(next(batches), step=step)
    waited = time.monotonic()
    rollouts = run.programs.sample(run.state.params, drawn.batch, run.programs.phase_settings(phase), key)
    nothing: Any = None  # the step counter is no row
    local: Rollouts = host_rows(dataclasses.replace(rollouts, executed=nothing))
    sampled = time.monotonic()
    texts = response_texts(setup.tokenizer, np.asarray(local.tokens), np.asarray(local.mask))
    lengths = np.asarray(local.lengths)
    scores = score_groups(
        all_as_seen(drawn.problems, drawn.prompts, setup.model.vision.patch_size),
        texts,
        np.asarray(local.finished),
        lengths,
        phase.reward,
        setup.config.prompt.format,
        run.pool,
        generate=policy_generate(setup, run.programs, run.state.params) if asks_again(phase) else None,
        max_response=phase.max_response,
        count_tokens=lambda text: len(setup.tokenizer.encode(text, add_special_tokens=False)),
    )
    total = scores.total + overlong_rewards(lengths, phase.max_response, phase.grpo.overlong)
    names = [problem.id for problem in drawn.problems]
    usable, bad = silence_bad_groups({"total": total, **scores.components}, names)
    bad = [sentence for sentence in bad if "'total'" not in sentence] or bad  # a bad component makes the total bad
    if bad:
        run.progress.note(
            f"step {step}: {bad[0]}; the group is taken out of training"
            + (f", and {len(bad) - 1} more such findings" if len(bad) > 1 else "")
        )
    usable = leaders_rows({name: values.astype(np.float32) for name, values in usable.items()}, setup.share)
    rewards = Rewards(usable.pop("total"), usable, tasks_of(drawn.problems, run.programs.task_names))
    seconds = (waited - began, sampled - waited, time.monotonic() - sampled)
    return Groups(drawn, texts, scores, rollouts, local, rewards, bad, seconds)


__all__ = ["Groups", "assemble", "collect", "kept_groups"]
