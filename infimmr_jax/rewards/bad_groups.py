"""Host-side check of rewards before they reach a device."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool

from infimmr_jax.config import RewardSection
from infimmr_jax.errors import UserError

# Squares of rewards must stay far inside float32.
LARGEST_REWARD = 1e9


@dataclasses.dataclass(frozen=True)
class Finding:
    """A reward that can not be used: of which component ("total" for the sum) and problem, and what is wrong."""

    component: str
    problem: str
    text: str


class BadRewardError(UserError, ValueError):
    """A reward can not be used: the sentence names component, problem and response."""


def reward_limits(reward: RewardSection) -> dict[str, float]:
    """The largest size of the total and of each weighted component: what `reward.limit` leaves of it, unweighted."""
    limit = reward.largest()
    weighted = {name: limit / abs(weight) for name, weight in reward.weights.items() if weight}
    return {name: min(most, LARGEST_REWARD) for name, most in (weighted | {"total": limit}).items()}


def bad_rewards(
    components: Mapping[str, np.ndarray], problem_ids: Sequence[str], limits: Mapping[str, float] | None = None
) -> list[Finding]:
    """Find every unusable reward: one finding for each component and problem with NaN, infinity or too large a value.

    `components` maps names to [P, G] arrays; `limits` (of `reward_limits`) bounds some of them, 1e9 the others. Raises
    ValueError when an array does not have one row a problem.
    """
    findings = []
    for name, values in components.items():
        values = np.asarray(values, np.float64)
        if values.ndim != 2 or values.shape[0] != len(problem_ids):
            raise ValueError(
                f"reward component {name!r} has shape {values.shape}, expected "
                f"[{len(problem_ids)} problems, group size]"
            )
        most = _limit(name, limits)
        bad = ~(np.abs(values) <= most)
        remedy = "repair the reward function"
        if most < LARGEST_REWARD:
            remedy += ", or raise reward.limit if it is meant to be so large"
        for row in np.flatnonzero(bad.any(axis=1)).tolist():
            which = np.flatnonzero(bad[row])
            if name == "judge" and np.isnan(values[row]).any():
                silent = int(np.isnan(values[row]).sum())
                text = (
                    f"the judge gave no verdict on {silent} of {values.shape[1]} responses of problem "
                    f"{problem_ids[row]!r}"
                )
                findings.append(Finding(name, problem_ids[row], text))
                continue
            text = (
                f"reward component {name!r} gave {values[row, which[0]]} for response {which[0]} of problem "
                f"{problem_ids[row]!r} ({len(which)} of {values.shape[1]} responses are not finite or beyond "
                f"{most:g}); {remedy}"
            )
            findings.append(Finding(name, problem_ids[row], text))
    return findings


def check_rewards(components: Mapping[str, np.ndarray], problem_ids: Sequence[str]) -> None:
    """Raise BadRewardError naming component, problem and response if a reward is NaN, infinite or beyond 1e9."""
    findings = bad_rewards(components, problem_ids)
    if findings:
        more = f" (and {len(findings) - 1} more such groups)" if len(findings) > 1 else ""
        raise BadRewardError(findings[0].text + more)


def silence_bad_groups(
    components: Mapping[str, np.ndarray], problem_ids: Sequence[str], limits: Mapping[str, float] | None = None
) -> tuple[dict[str, np.ndarray], Bool[np.ndarray, "P"], list[Finding]]:
    """Zero every group with an unusable reward: the components, which groups are usable, and findings why not.

    For runs that would rather go on than stop: an all-zero group has no signal, and the estimators leave groups that
    are not usable out of what they measure over the batch.
    """
    findings = bad_rewards(components, problem_ids, limits)
    arrays = {name: np.array(values, np.float64) for name, values in components.items()}
    bad = np.zeros(len(problem_ids), bool)
    for name, values in arrays.items():
        bad |= ~(np.abs(values) <= _limit(name, limits)).all(axis=1)
    for values in arrays.values():
        values[bad] = 0.0
    return arrays, ~bad, findings


def _limit(name: str, limits: Mapping[str, float] | None) -> float:
    return (limits or {}).get(name, LARGEST_REWARD)
