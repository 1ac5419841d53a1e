"""Reward components beside accuracy and format: built-in ones by name, user functions as `module:function`.

A component sees whole groups and gives one number a response. A user function is

    def brevity(group: Group) -> Sequence[float]: ...

named `my_package.my_module:brevity` or `my_rewards.py:brevity` in `reward.weights`; it is called once a group and
returns G numbers, in a process of its own (`reward.functions`). What it gets is read-only. A number that is not finite
takes the group out of training (`bad_groups`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from infimmr_jax.data.records import Problem
from infimmr_jax.errors import UserError
from infimmr_jax.names import REWARD_COMPONENTS
from infimmr_jax.rewards.function_worker import numbers
from infimmr_jax.rewards.functions import Failure, FunctionPool
from infimmr_jax.rewards.group import Group, group_to_json, read_only
from infimmr_jax.rewards.judge import judge_scores, load_judge
from infimmr_jax.rewards.judging import Judge, JudgeRequest
from infimmr_jax.rewards.lengths import LENGTH_REWARDS, repetition_penalty
from infimmr_jax.rewards.loading import check_takes_one, is_ours, load_callable, what_failed
from infimmr_jax.rewards.pool import GraderPool
from infimmr_jax.rewards.second_pass import Generate, caption_check, option_consistency

if TYPE_CHECKING:
    from infimmr_jax.config import RewardSection

KEY = "reward.weights"
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Tools:
    """What components may use: the configuration, the graders, and, where given, the policy and a judge.

    `max_response` is the response limit in tokens, `count_tokens` counts those of a text. `counters` takes what a
    component wants to report.
    """

    reward: RewardSection
    response_format: str
    pool: GraderPool
    generate: Generate | None = None
    judge: Judge | None = None
    max_response: int | None = None
    count_tokens: Callable[[str], int] | None = None
    counters: Counter[str] = dataclasses.field(default_factory=Counter)


class RewardError(UserError, ValueError):
    """A reward function returned something that is no reward, or lacks what it needs: the sentence names it."""


GroupReward = Callable[[Group], Sequence[float]]


def component_scores(name: str, groups: Sequence[Group], tools: Tools) -> Float[np.ndarray, "P G"]:
    """Scores of one component for all groups, float32 [P, G]; `name` is a key of COMPONENTS or a user's function.

    A function that fails on a group gives NaN there, with a count and a warning; RewardError when it fails on all.
    """
    if name in COMPONENTS:
        rows = COMPONENTS[name](groups, tools)
        return np.stack([_checked(name, group, row) for group, row in zip(groups, rows, strict=True)])
    answers = _call(name, groups, tools.reward, tools.pool)
    failures = [
        (group, answer.why) for group, answer in zip(groups, answers, strict=True) if isinstance(answer, Failure)
    ]
    if failures:
        group, why = failures[0]
        said = f"reward function {name} failed on problem {group.problem.id!r}: {why}"
        if len(failures) == len(groups):
            raise RewardError(f"{said}{' (and on all the others)' if len(groups) > 1 else ''}")
        _log.warning("%s%s", said, f", and on {len(failures) - 1} more" if len(failures) > 1 else "")
        tools.counters["function_failures"] += len(failures)
    nothing = [float("nan")] * len(groups[0].responses)
    return np.stack([np.asarray(nothing if isinstance(row, Failure) else row, np.float32) for row in answers])


def check_components(reward: RewardSection, pool: GraderPool | None = None) -> None:
    """Load every function that the configuration names, so that a missing one is said before training starts.

    Functions of users are loaded where they will run: in a process, or here when `reward.functions.where` says so.
    """
    with contextlib.closing(FunctionPool()) if pool is None else contextlib.nullcontext(pool.functions) as functions:
        for name in reward.weights:
            if name in REWARD_COMPONENTS:
                continue
            if reward.functions.where == "trainer" or is_ours(name):
                check_takes_one(load_callable(name, KEY), name, KEY)
            else:
                functions.load(name, KEY, "group", reward.functions)
        if reward.judge is not None:
            load_judge(reward.judge, functions, reward.functions)


def try_functions(reward: RewardSection, problem: Problem, group_size: int, pool: GraderPool) -> None:
    """Call every function of a user once on a made-up group: this problem, answered right once, and then not at all.

    RewardError names function and problem when that gives no numbers. Call it before anything is compiled.
    """
    G = group_size
    responses = (f"<think>It is {problem.answer}.</think> \\boxed{{{problem.answer}}}", *[""] * (G - 1))
    right = np.zeros(G, np.float32)
    right[0] = 1.0
    components: dict[str, Float[np.ndarray, "G"]] = {"accuracy": right, "format": right}
    lengths = np.asarray([len(response) for response in responses])
    for name in reward.weights:
        if name not in REWARD_COMPONENTS:
            extracted = (problem.answer, *[None] * (G - 1))
            group = Group(problem, responses, extracted, np.ones(G, bool), lengths, components)
            (answer,) = _call(name, [group], reward, pool)
            if isinstance(answer, Failure):
                raise RewardError(
                    f"reward function {name} failed on a made-up group of {G} responses to problem {problem.id!r}: "
                    f"{answer.why}"
                )
        components = {**components, name: right}


def _call(
    name: str, groups: Sequence[Group], reward: RewardSection, pool: GraderPool
) -> list[Sequence[float] | Failure]:
    """What a function of a user says of each group: G numbers, or why it says nothing."""
    if reward.functions.where == "trainer" or is_ours(name):
        function = load_callable(name, KEY)
        rows: Sequence[Sequence[float] | Failure] = [_call_here(function, group) for group in groups]
    else:
        rows = pool.functions.call(name, KEY, "group", [group_to_json(group) for group in groups], reward.functions)
    return [_of_right_length(row, group) for row, group in zip(rows, groups, strict=True)]


def _call_here(function: GroupReward, group: Group) -> list[float] | Failure:
    try:
        return numbers(function(read_only(group)))
    except (Exception, SystemExit) as error:  # whatever a user's function does is said, and ends nothing
        return Failure(what_failed(error))


def _of_right_length(row: Sequence[float] | Failure, group: Group) -> Sequence[float] | Failure:
    wanted = len(group.responses)
    if isinstance(row, Failure) or len(row) == wanted:
        return row
    return Failure(f"it must return one number for each of the {wanted} responses, it returned {len(row)}")


def _checked(name: str, group: Group, row: Sequence[float]) -> Float[np.ndarray, "G"]:
    try:
        values = np.asarray(row, np.float32)
    except (TypeError, ValueError) as error:
        raise RewardError(f"reward {name} returned no numbers for problem {group.problem.id}: {error}") from error
    if values.shape != (len(group.responses),):
        raise RewardError(
            f"reward {name} returned shape {values.shape} for problem {group.problem.id}; "
            f"it must return one number for each of the {len(group.responses)} responses"
        )
    return values


def _accuracy_and_format(groups: Sequence[Group], tools: Tools) -> list[Sequence[float]]:
    """Accuracy where the format is right, else 0 (the hard rule of Vision-R1, arXiv 2503.06749)."""
    return [list(group.components["accuracy"] * group.components["format"]) for group in groups]


def _judge(groups: Sequence[Group], tools: Tools) -> list[list[float]]:
    """What the judge says of each response, in [0, 1]."""
    if tools.judge is None:
        raise RewardError("reward.weights names 'judge', but no judge is configured: set reward.judge")
    requests = [
        JudgeRequest(group.problem.question, group.problem.answer, response, answer, group.problem)
        for group in groups
        for response, answer in zip(group.responses, group.extracted, strict=True)
    ]
    return _regroup(judge_scores(tools.judge, requests, tools.counters), groups)


def _caption_check(groups: Sequence[Group], tools: Tools) -> list[list[float]]:
    if tools.generate is None:
        raise RewardError("reward 'caption_check' asks the policy again, but it was given none to ask")
    asked = [(group.problem, response) for group in groups for response in group.responses]
    scores = caption_check(asked, tools.generate, tools.pool, tools.reward, tools.counters)
    return _regroup(scores, groups)


def _option_consistency(groups: Sequence[Group], tools: Tools) -> list[list[float]]:
    if tools.generate is None:
        raise RewardError("reward 'option_consistency' asks the policy again, but it was given none to ask")
    asked = [
        (group.problem, response, bool(right))
        for group in groups
        for response, right in zip(group.responses, group.components["accuracy"] == 1, strict=True)
    ]
    scores = option_consistency(asked, tools.response_format, tools.generate, tools.reward, tools.counters)
    return _regroup(scores, groups)


def _length(groups: Sequence[Group], tools: Tools) -> list[list[float]]:
    """The term that `reward.length` asks for."""
    section = tools.reward.length
    if section is None or tools.max_response is None:
        raise RewardError("reward 'length' needs reward.length and a response limit, which only training has")
    lengths = np.stack([group.lengths for group in groups])
    right = np.stack([group.components[section.component] for group in groups])
    arguments = section.arguments()
    if section.kind == "answer_closeness":
        if tools.count_tokens is None:
            raise RewardError("reward.length of kind 'answer_closeness' counts tokens, but was given no tokenizer")
        count = tools.count_tokens
        lengths = np.asarray([[count(answer or "") for answer in group.extracted] for group in groups])
        arguments["answered"] = np.asarray([[answer is not None for answer in group.extracted] for group in groups])
        arguments["gold_lengths"] = np.asarray([count(group.problem.answer) for group in groups])
    return LENGTH_REWARDS[section.kind](lengths, right, tools.max_response, **arguments).tolist()


def _repetition(groups: Sequence[Group], tools: Tools) -> list[list[float]]:
    """Minus the share of repeated n-grams (VL-Cogito, Perception-R1)."""
    section = tools.reward.repetition
    if section is None:
        raise RewardError("reward.weights names 'repetition', so reward.repetition must be set")
    right = np.stack([group.components[section.component] for group in groups])
    shares = repetition_penalty(
        [group.responses for group in groups],
        right,
        ngram=section.ngram,
        penalty=1.0,
        wrong_only=section.wrong_only,
        correct_from=section.correct_from,
    )
    return shares.tolist()


def _regroup(scores: Sequence[float], groups: Sequence[Group]) -> list[list[float]]:
    left = iter(scores)
    return [[next(left) for _ in group.responses] for group in groups]


COMPONENTS: dict[str, Callable[[Sequence[Group], Tools], Sequence[Sequence[float]]]] = {
    "accuracy_and_format": _accuracy_and_format,
    "judge": _judge,
    "caption_check": _caption_check,
    "option_consistency": _option_consistency,
    "length": _length,
    "repetition": _repetition,
}
