"""Host-side check of rewards before they reach a device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

# Squares of rewards must stay far inside float32.
LARGEST_REWARD = 1e9


def bad_rewards(components: Mapping[str, np.ndarray], problem_ids: Sequence[str]) -> list[str]:
    """Sentences about every unusable reward: one for each component and problem that has NaN, infinity or |r| > 1e9.

    `components` maps names to [P, G] arrays. Raises ValueError when an array does not have one row a problem.
    """
    sentences = []
    for name, values in components.items():
        values = np.asarray(values, np.float64)
        if values.ndim != 2 or values.shape[0] != len(problem_ids):
            raise ValueError(
                f"reward component {name!r} has shape {values.shape}, expected "
                f"[{len(problem_ids)} problems, group size]"
            )
        bad = ~(np.abs(values) <= LARGEST_REWARD)
        for row in np.flatnonzero(bad.any(axis=1)).tolist():
            which = np.flatnonzero(bad[row])
            sentences.append(
                f"reward component {name!r} gave {values[row, which[0]]} for response {which[0]} of problem "
                f"{problem_ids[row]!r} ({len(which)} of {values.shape[1]} responses are not finite or beyond "
                f"{LARGEST_REWARD:g}); repair the reward function"
            )
    return sentences


def check_rewards(components: Mapping[str, np.ndarray], problem_ids: Sequence[str]) -> None:
    """Raise ValueError naming component, problem and response if a reward is NaN, infinite or beyond 1e9."""
    sentences = bad_rewards(components, problem_ids)
    if sentences:
        more = f" (and {len(sentences) - 1} more such groups)" if len(sentences) > 1 else ""
        raise ValueError(sentences[0] + more)


def silence_bad_groups(
    components: Mapping[str, np.ndarray], problem_ids: Sequence[str]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Components in which every group with an unusable reward is all zero, and the sentences that say which and why.

    An all-zero group has no signal, so it moves nothing; for runs that would rather go on than stop.
    """
    sentences = bad_rewards(components, problem_ids)
    arrays = {name: np.array(values, np.float64) for name, values in components.items()}
    bad = np.zeros(len(problem_ids), bool)
    for values in arrays.values():
        bad |= ~(np.abs(values) <= LARGEST_REWARD).all(axis=1)
    for values in arrays.values():
        values[bad] = 0.0
    return arrays, sentences


__all__ = ["LARGEST_REWARD", "bad_rewards", "check_rewards", "silence_bad_groups"]
