"""Reward terms from the lengths of a whole group, on the host; chosen by name from the dict literal `LENGTH_REWARDS`.

Every function takes lengths in tokens and accuracies, both [P, G], and the response limit in tokens, and returns a term
[P, G] to add to the reward; a response counts as right from `correct_from` on. Formulas: docs/methods.md, "Lengths".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Real

from infimmr_jax.config import OverlongSection

Lengths = Int[np.ndarray, "P G"]
Accuracies = Real[np.ndarray, "P G"]
Scores = Float[np.ndarray, "P G"]


def soft_overlong(
    lengths: Lengths, accuracy: Accuracies, max_response: int, *, buffer: int, penalty: float = 1.0
) -> Scores:
    """0 up to max_response - buffer tokens, then down in a line to -penalty at the limit (DAPO, eq. 13).

    Raises ValueError when the buffer is not within the response limit.
    """
    if not 0 < buffer <= max_response:
        raise ValueError(
            f"an overlong buffer of {buffer} tokens does not fit into responses of {max_response} tokens; "
            "choose one between 1 and the response limit"
        )
    return -penalty * np.clip((lengths - (max_response - buffer)) / buffer, 0.0, 1.0)


def overlong_rewards(lengths: Lengths, max_response: int, config: OverlongSection) -> Scores:
    """Compute the soft penalty that `grpo.overlong` asks for; zeros in its other modes."""
    if config.mode != "soft":
        return np.zeros(lengths.shape)
    return soft_overlong(lengths, np.zeros(lengths.shape), max_response, buffer=config.buffer, penalty=config.penalty)


def dylr(
    lengths: Lengths,
    accuracy: Accuracies,
    max_response: int,
    *,
    form: Literal["paper", "code"] = "paper",
    low: float = -0.5,
    high: float = 0.0,
    unsolved_length: int = 750,
    correct_from: float = 0.5,
) -> Scores:
    """VL-Cogito's dynamic length reward: highest at a target length, falling by a cosine to both sides.

    The target is the mean length of the group's right responses, or `unsolved_length` when there is none. `paper`
    rewards every response so; `code` follows the release: right responses get 0, and in an unsolved group only short
    responses (half of the cosine) and cut ones (half of `low`) get something.
    """
    right = accuracy >= correct_from
    target, solved = _mean_right_length(lengths, right, float(unsolved_length))
    # The cosine would rise again beyond twice the target.
    way = np.minimum(lengths / np.maximum(target, 1), 2.0)
    shaped = low + 0.5 * (high - low) * (1.0 - np.cos(np.pi * way))
    if form == "paper":
        return shaped
    unsolved = np.where(lengths < target, 0.5 * shaped, np.where(lengths >= max_response, 0.5 * low, 0.0))
    return np.where(solved, np.where(right, 0.0, shaped), unsolved)


def dast(
    lengths: Lengths,
    accuracy: Accuracies,
    max_response: int,
    *,
    gain: float = 0.5,
    floor: float = 0.1,
    wrong_gain: float = 0.9,
    correct_from: float = 0.5,
) -> Scores:
    """UI-R1-E's difficulty-adaptive term: a length budget between the right responses' mean and the limit.

    With p the share of right responses and m their mean length, the budget is b = p m + (1 - p) limit, and
    x = (length - b) / b. Right responses get max(gain - gain x, floor), wrong ones min(wrong_gain x - floor,
    -floor). (DAST, arXiv 2503.04472, with UI-R1-E's constants.)
    """
    right = accuracy >= correct_from
    share = right.mean(axis=1, keepdims=True)
    mean, _ = _mean_right_length(lengths, right, 0.0)
    budget = share * mean + (1.0 - share) * max_response
    beyond = (lengths - budget) / np.maximum(budget, 1e-9)
    return np.where(right, np.maximum(gain - gain * beyond, floor), np.minimum(wrong_gain * beyond - floor, -floor))


def answer_closeness(
    lengths: Lengths,
    accuracy: Accuracies,
    max_response: int,
    *,
    gold_lengths: Int[np.ndarray, "P"],
    answered: Bool[np.ndarray, "P G"],
    per_token: float = 0.05,
    most: int = 10,
    unanswered: float = 0.5,
    correct_from: float = 0.5,
) -> Scores:
    """General-Reasoner: a right answer loses `per_token` for every token its length differs from the gold answer's.

    Here `lengths` are those of the extracted answers, not of the responses; at most `most` tokens count. A response in
    which no answer was found (not `answered`) loses `unanswered`.
    """
    away = np.minimum(np.abs(lengths - np.asarray(gold_lengths)[:, None]), most)
    return np.where(accuracy >= correct_from, -per_token * away, 0.0) - unanswered * ~answered


def cosine(
    lengths: Lengths,
    accuracy: Accuracies,
    max_response: int,
    *,
    right: tuple[float, float] = (1.0, 0.5),
    wrong: tuple[float, float] = (-1.0, -0.5),
    cut: float | None = None,
    correct_from: float = 0.5,
) -> Scores:
    """A right (wrong) response gets right[0] (wrong[0]) at length 0, by a cosine right[1] (wrong[1]) at the limit.

    `cut`, when given, replaces the value of responses that fill the limit. Source: Yeo et al., "Demystifying Long
    Chain-of-Thought Reasoning", 2025 (defaults as in open-source use: wrong answers are asked to think longer).
    """
    start, end = (np.where(accuracy >= correct_from, a, b) for a, b in zip(right, wrong, strict=True))
    value = end + 0.5 * (start - end) * (1.0 + np.cos(np.pi * np.minimum(lengths / max_response, 1.0)))
    return value if cut is None else np.where(lengths >= max_response, cut, value)


def shortest_right(
    lengths: Lengths,
    accuracy: Accuracies,
    max_response: int,
    *,
    bonus: float = 0.2,
    over: int = 100,
    correct_from: float = 0.5,
) -> Scores:
    """Observe-R1: the shortest right response of a group gets `bonus` if it has more than `over` tokens.

    Of several equally short ones the first; a group without a right response gets nothing.
    """
    ranked = np.where(accuracy >= correct_from, lengths, np.inf)
    best = np.arange(lengths.shape[1]) == ranked.argmin(axis=1)[:, None]
    return np.where(best & np.isfinite(ranked) & (ranked > over), bonus, 0.0)


def repetition_penalty(
    responses: Sequence[Sequence[str]],
    accuracy: Accuracies | None = None,
    *,
    ngram: int = 20,
    penalty: float = 0.5,
    wrong_only: bool = False,
    correct_from: float = 0.5,
) -> Scores:
    """-penalty (1 - different n-grams / all n-grams) of the lower-cased words of each response, 0 if it is too short.

    `responses` holds P groups of G texts. VL-Cogito: 0.5, wrong responses only; Perception-R1: 2.0, all. Raises
    ValueError when `wrong_only` is asked for without accuracies.
    """
    if wrong_only and accuracy is None:
        raise ValueError("repetition_penalty with wrong_only needs the accuracies of the responses")
    values = np.array([[-penalty * _repeated_share(text, ngram) for text in group] for group in responses])
    return values if not wrong_only or accuracy is None else np.where(accuracy >= correct_from, 0.0, values)


def _repeated_share(text: str, ngram: int) -> float:
    words = text.lower().split()
    count = len(words) - ngram + 1
    if count < 1:
        return 0.0
    return 1.0 - len({tuple(words[start : start + ngram]) for start in range(count)}) / count


def _mean_right_length(
    lengths: Lengths, right: Bool[np.ndarray, "P G"], otherwise: float
) -> tuple[Float[np.ndarray, "P 1"], Bool[np.ndarray, "P 1"]]:
    count = right.sum(axis=1, keepdims=True)
    mean = np.where(right, lengths, 0).sum(axis=1, keepdims=True) / np.maximum(count, 1)
    return np.where(count > 0, mean, otherwise), count > 0


LENGTH_REWARDS: dict[str, Callable[..., Scores]] = {
    "soft_overlong": soft_overlong,
    "dylr": dylr,
    "dast": dast,
    "answer_closeness": answer_closeness,
    "cosine": cosine,
    "shortest_right": shortest_right,
}

__all__ = [
    "LENGTH_REWARDS",
    "answer_closeness",
    "cosine",
    "dast",
    "dylr",
    "overlong_rewards",
    "repetition_penalty",
    "shortest_right",
    "soft_overlong",
]
