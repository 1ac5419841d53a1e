"""Reward components beside accuracy and format: built-in ones by name, user functions as `module:function`.

A component sees whole groups and gives one number a response. A user function is

    def brevity(group: Group) -> Sequence[float]: ...

named `my_package.my_module:brevity` in `reward.weights`; it is called once a group and returns G numbers. A number that
is not finite takes the group out of training (`grpo.check`).
"""

from __future__ import annotations

import dataclasses
import inspect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int

from infimmr_jax.data.records import Problem
from infimmr_jax.errors import UserError
from infimmr_jax.names import REWARD_COMPONENTS
from infimmr_jax.rewards.judge import Judge, JudgeRequest, judge_scores, load_judge
from infimmr_jax.rewards.lengths import LENGTH_REWARDS, repetition_penalty
from infimmr_jax.rewards.loading import LoadError, load_callable
from infimmr_jax.rewards.pool import GraderPool
from infimmr_jax.rewards.second_pass import Generate, caption_check, option_consistency

if TYPE_CHECKING:
    from infimmr_jax.config import RewardSection


@dataclasses.dataclass(frozen=True)
class Group:
    """The G responses to one problem, as a reward function sees them.

    `finished` is False where a response was cut at its length limit; `lengths` are in tokens; `components` holds what
    was computed before ("accuracy" and "format" always, then the weights' order).
    """

    problem: Problem
    responses: tuple[str, ...]
    extracted: tuple[str | None, ...]
    finished: Bool[np.ndarray, "G"]
    lengths: Int[np.ndarray, "G"]
    components: Mapping[str, Float[np.ndarray, "G"]]


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
    """Scores of one component for all groups, float32 [P, G]; `name` is a key of COMPONENTS or `module:function`."""
    if name in COMPONENTS:
        rows: Sequence[Sequence[float]] = COMPONENTS[name](groups, tools)
    else:
        function = load_function(name)
        rows = [function(group) for group in groups]
    return np.stack([_checked(name, group, row) for group, row in zip(groups, rows, strict=True)])


def load_function(name: str) -> GroupReward:
    """The user function `module:function`; LoadError when it can not be imported or does not take one group."""
    function = load_callable(name, "reward.weights")
    needed = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    if len(needed) != 1 or needed[0].kind in (needed[0].KEYWORD_ONLY, needed[0].VAR_KEYWORD):
        raise LoadError(f"reward function {name} must take one argument, the group; it takes {len(needed)}")
    return function


def check_components(reward: RewardSection) -> None:
    """Load every function that the configuration names, so that a missing one is said before training starts."""
    for name in reward.weights:
        if name not in REWARD_COMPONENTS:
            load_function(name)
    if reward.judge is not None:
        load_judge(reward.judge)


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

__all__ = [
    "COMPONENTS",
    "Group",
    "GroupReward",
    "RewardError",
    "Tools",
    "check_components",
    "component_scores",
    "load_function",
]
