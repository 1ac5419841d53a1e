"""The groups of a step: batches of prompts drawn, sampled and graded, and which of their groups train."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from infimmr_jax.config import DrawsSection, PhaseSection
from infimmr_jax.data.curriculum import StepBatch
from infimmr_jax.data.records import Problem
from infimmr_jax.model.trunk import Params
from infimmr_jax.objectives.step import Rewards
from infimmr_jax.parallel.hosts import host_rows, largest_over_hosts, leaders_rows, sum_over_hosts
from infimmr_jax.preprocess.prompts import all_as_seen
from infimmr_jax.rewards.bad_groups import Finding, reward_limits, silence_bad_groups
from infimmr_jax.rewards.lengths import overlong_rewards
from infimmr_jax.rewards.router import Scores, grade_ahead, score_groups
from infimmr_jax.rollout.state import Rollouts
from infimmr_jax.rollout.vocabulary import response_texts
from infimmr_jax.training.asking_again import asks_again, policy_generate
from infimmr_jax.training.programs import tasks_of
from infimmr_jax.training.setup import Setup
from infimmr_jax.training.stage import StageInputs


@dataclasses.dataclass(frozen=True)
class Groups:
    """Groups of one batch. `rollouts` are the global ones where a sampler made them; all else are this host's rows.

    `executed` is how many rows times steps sampling them took.
    `bad` are sentences about rewards that are no numbers or far too large.
    """

    step: StepBatch
    texts: list[list[str]]
    scores: Scores
    rollouts: Rollouts
    executed: jax.Array | np.ndarray
    local: Rollouts
    rewards: Rewards
    bad: list[Finding]
    seconds: Seconds


class Seconds(NamedTuple):
    """When it began by the clock, and seconds of waiting for input, of sampling, and of grading once all is sampled."""

    began: float
    input: float
    rollout: float
    grade: float


@dataclasses.dataclass(frozen=True)
class _Sampling:
    """A batch that the devices sample responses for; `stages` are the rollouts at every compaction, and at the end."""

    step: StepBatch
    stages: list[Rollouts]
    executed: jax.Array
    input_seconds: float
    began: float


@dataclasses.dataclass(frozen=True)
class _Shape:
    """What a bucket is chosen by: the largest prompt and pictures of all hosts."""

    name: str
    length: int
    image_shape: tuple[int, int]


def collect(
    inputs: StageInputs,
    params: Params,
    batches: Iterator[StepBatch],
    phase: PhaseSection,
    key: jax.Array,
    step: int,
    meanwhile: Callable[[], float],
) -> tuple[Groups, dict[str, float]]:
    """Draw batches until the step has its groups (`rollout.draws`); returns them with what the drawing was like.

    A draw that is made in any case is given to the devices before the one before it is graded. `meanwhile` is called
    whenever the devices were given responses to sample; see `stage.Stage.step`.
    """
    draws = phase.rollout.draws

    def sample(number: int) -> _Sampling:
        drawn_key = key if number == 0 else jax.random.fold_in(key, number)
        return _sample(inputs, params, batches, phase, drawn_key, step, meanwhile)

    sampling = sample(0)
    drawn: list[Groups] = []
    while True:
        number = len(drawn) + 1
        following = None
        if number < draws.at_least:
            following = sample(number)
        drawn.append(_grade(inputs, params, sampling, phase))
        if draws.at_most == 1:
            return drawn[0], {}
        if following is None:
            rows = len(drawn[0].step.problems)
            lacking = len(kept_groups([groups.rewards for groups in drawn], draws)[0]) < rows
            if number >= draws.at_most or not largest_over_hosts(np.asarray([int(lacking)]))[0]:
                break
            following = sample(number)
        sampling = following
    kept, dropped = kept_groups([groups.rewards for groups in drawn], draws)
    totals = _DrawTotals.of(drawn, kept).over_hosts(inputs.setup)
    if totals.filled < totals.wanted:
        inputs.say(
            f"step {step}: only {totals.filled:.0f} of {totals.wanted:.0f} groups have a signal after {len(drawn)} "
            "draws; the others are filled with groups without"
        )
    metrics = {
        "sampling/draws": float(len(drawn)),
        "sampling/kept_share": totals.kept / totals.groups,
        "sampling/filled_share": totals.filled / totals.wanted,
        "sampling/accuracy": totals.accuracy / totals.groups,
        "sampling/reward": totals.reward / totals.groups,
        "sampling/tokens": totals.tokens,
    }
    return assemble(inputs.setup, drawn, (kept + dropped)[:rows]), metrics


class _DrawTotals(NamedTuple):
    """Sums over the groups that a step drew: rows of the batch that kept groups fill and that it has, groups kept and
    drawn, their mean accuracies and rewards, and tokens."""

    filled: float
    wanted: float
    kept: float
    groups: float
    accuracy: float
    reward: float
    tokens: float

    @classmethod
    def of(cls, drawn: Sequence[Groups], kept: Sequence[tuple[int, int]]) -> _DrawTotals:
        """Sum what this host drew."""
        rows = len(drawn[0].step.problems)
        accuracy = np.concatenate([groups.rewards.components["accuracy"] for groups in drawn])
        total = np.concatenate([groups.rewards.total for groups in drawn])
        return cls(
            filled=min(len(kept), rows),
            wanted=rows,
            kept=len(kept),
            groups=len(total),
            accuracy=accuracy.mean(1).sum(),
            reward=total.mean(1).sum(),
            tokens=sum(int(np.asarray(groups.local.lengths).sum()) for groups in drawn),
        )

    def over_hosts(self, setup: Setup) -> _DrawTotals:
        """Sum over all hosts."""
        return _DrawTotals(*sum_over_hosts(np.asarray(self, np.float64), setup.share).tolist())


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


def assemble(setup: Setup, drawn: Sequence[Groups], chosen: Sequence[tuple[int, int]]) -> Groups:
    """One batch of the chosen groups, in a shape that the run already has programs for."""
    first = drawn[0].step
    problems = [drawn[d].step.problems[row] for d, row in chosen]
    prompts = [drawn[d].step.prompts[row] for d, row in chosen]
    # Hosts choose different groups and must still agree on the bucket.
    sizes = np.asarray([(prompt.length, *prompt.image_shape) for prompt in prompts]).max(axis=0)
    length, slots, patches = largest_over_hosts(sizes).tolist()
    everyone = [_Shape("of another host", length, (slots, patches))]
    batch = setup.collate(prompts, len(prompts), everyone)
    step = dataclasses.replace(
        first,
        problems=problems,
        modalities=[drawn[d].step.modalities[row] for d, row in chosen],
        prompts=prompts,
        batch=batch,
    )

    def picked(*trees: PyTree) -> PyTree:
        return jax.tree.map(lambda *leaves: np.stack([leaves[d][row] for d, row in chosen]), *trees)

    local = picked(*(groups.local for groups in drawn))
    executed = np.asarray(sum(int(groups.executed) for groups in drawn), np.int32)
    counters: Counter[str] = Counter()
    for groups in drawn:
        counters.update(groups.scores.counters)
    scores = [groups.scores for groups in drawn]
    waits = np.sum([groups.seconds[1:] for groups in drawn], axis=0)
    return Groups(
        step=step,
        texts=[drawn[d].texts[row] for d, row in chosen],
        scores=Scores(
            components=picked(*(one.components for one in scores)),
            total=picked(*(one.total for one in scores)),
            extracted=[scores[d].extracted[row] for d, row in chosen],
            reasons=[scores[d].reasons[row] for d, row in chosen],
            codes=[scores[d].codes[row] for d, row in chosen],
            counters=dict(counters),
        ),
        rollouts=local,
        executed=executed,
        local=local,
        rewards=picked(*(groups.rewards for groups in drawn)),
        bad=[sentence for groups in drawn for sentence in groups.bad],
        seconds=Seconds(drawn[0].seconds.began, *waits.tolist()),
    )


def _sample(
    inputs: StageInputs,
    params: Params,
    batches: Iterator[StepBatch],
    phase: PhaseSection,
    key: jax.Array,
    step: int,
    meanwhile: Callable[[], float],
) -> _Sampling:
    """Give the next batch to the devices, and write what is still to be said about the step before."""
    began = time.monotonic()
    drawn = next(batches)
    waited = time.monotonic() - began
    problems = all_as_seen(drawn.problems, drawn.prompts, inputs.setup.model.layout.patch_size)
    drawn = dataclasses.replace(drawn, step=step, problems=problems)
    programs = inputs.programs
    stages, executed = programs.sample_in_stages(params, drawn.batch, programs.phase_settings(phase), key)
    # Waiting for input while the devices still compute the step before is no time of this one.
    return _Sampling(drawn, stages, executed, waited, max(began, meanwhile()))


def _grade(inputs: StageInputs, params: Params, sampling: _Sampling, phase: PhaseSection) -> Groups:
    """Grade responses as they are finished; groups with an unusable reward are taken out of training, and said."""
    setup, drawn = inputs.setup, sampling.step
    began = time.monotonic()
    local, texts = _finished_texts(inputs, sampling, phase)
    sampled = time.monotonic()
    lengths = np.asarray(local.lengths)
    scores = score_groups(
        drawn.problems,
        texts,
        np.asarray(local.finished),
        lengths,
        phase.reward,
        setup.config.prompt.format,
        inputs.pool,
        generate=policy_generate(setup, inputs.programs, params, phase.rollout) if asks_again(phase) else None,
        max_response=phase.max_response,
        count_tokens=lambda text: len(setup.tokenizer.encode(text, add_special_tokens=False)),
    )
    # The total that transcripts show is the one that trains.
    penalty = overlong_rewards(lengths, phase.max_response, phase.grpo.overlong)
    scores = dataclasses.replace(scores, total=(scores.total + penalty).astype(scores.total.dtype))
    names = [problem.id for problem in drawn.problems]
    values = {"total": scores.total, **scores.components}
    rated, usable, bad = silence_bad_groups(values, names, reward_limits(phase.reward))
    bad = [finding for finding in bad if finding.component != "total"] or bad  # a bad component makes the total bad
    if bad:
        inputs.say(
            f"step {drawn.step}: {bad[0].text}; the group is taken out of training"
            + (f", and {len(bad) - 1} more such findings" if len(bad) > 1 else "")
        )
    rated = {name: values.astype(np.float32) for name, values in rated.items()}
    rated, usable = leaders_rows((rated, usable), setup.share)
    # Here the hosts wait for each other anyway.
    inputs.agree()
    rewards = Rewards(rated.pop("total"), rated, tasks_of(drawn.problems, inputs.programs.task_names), usable)
    seconds = Seconds(sampling.began, sampling.input_seconds, sampled - began, time.monotonic() - sampled)
    rollouts = sampling.stages[-1], sampling.executed, local
    return Groups(drawn, texts, scores, *rollouts, rewards, bad, seconds)


def _finished_texts(inputs: StageInputs, sampling: _Sampling, phase: PhaseSection) -> tuple[Rollouts, list[list[str]]]:
    """This host's rows of the finished rollouts, and their texts; the graders already have what was finished early."""
    setup, problems = inputs.setup, sampling.step.problems
    texts: dict[tuple[int, int], str] = {}

    def read(tokens: np.ndarray, mask: np.ndarray, ready: np.ndarray) -> list[tuple[Problem, str]]:
        places = [(row, column) for row, column in np.argwhere(ready).tolist() if (row, column) not in texts]
        rows, columns = np.asarray(places, int).reshape(-1, 2).T
        given = tokens[rows, columns][None], mask[rows, columns][None], setup.model.tokens.ends
        new_texts = response_texts(setup.tokenizer, *given)[0]
        texts.update(zip(places, new_texts, strict=True))
        return [(problems[row], text) for (row, _), text in zip(places, new_texts, strict=True)]

    *early, last = sampling.stages
    for stage in early:
        finished = read(*host_rows((stage.tokens, stage.mask, stage.finished)))
        grade_ahead(finished, phase.reward, setup.config.prompt.format, inputs.pool)
    local: Rollouts = host_rows(last)
    read(np.asarray(local.tokens), np.asarray(local.mask), np.ones(local.finished.shape, bool))
    P, G = local.finished.shape
    return local, [[texts[row, column] for column in range(G)] for row in range(P)]


__all__ = ["Groups", "assemble", "collect", "kept_groups"]
