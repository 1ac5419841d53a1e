"""Reward components become one number: their weighted sum, a product, or a sum behind the gate of the format."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float

from infimmr_jax.config.reward import TERMS, RewardSection

Components = Mapping[str, Float[np.ndarray, "P G"]]


def combined(components: Components, reward: RewardSection) -> Float[np.ndarray, "P G"]:
    """The total reward of every response, float32 [P, G].

    With weights w and components c: `sum` is sum w c; `multiply` is the product of 1 - w (1 - c), so that a weight of 1
    is a plain factor; `hard_and` is sum w c where the format is right and 0 elsewhere (Vision-R1, arXiv 2503.06749,
    with weights {accuracy: 1}). The terms `length` and `repetition` are added with their weights afterwards: behind the
    gate, a response could get out of a penalty by breaking the format.
    """
    quality = {name: weight for name, weight in reward.weights.items() if name not in TERMS}
    total = COMBINATIONS[reward.combine](components, quality)
    for name in reward.weights:
        if name in TERMS:
            total = total + np.float32(reward.weights[name]) * components[name]
    return total


def _sum(components: Components, weights: Mapping[str, float]) -> np.ndarray:
    total = np.zeros_like(components["accuracy"])
    for name, weight in weights.items():
        total = total + np.float32(weight) * components[name]
    return total


def _multiply(components: Components, weights: Mapping[str, float]) -> np.ndarray:
    total = np.ones_like(components["accuracy"])
    for name, weight in weights.items():
        total = total * (1 - np.float32(weight) * (1 - components[name]))
    return total


def _hard_and(components: Components, weights: Mapping[str, float]) -> np.ndarray:
    return np.where(components["format"] == 1, _sum(components, weights), np.float32(0))


COMBINATIONS: dict[str, Callable[[Components, Mapping[str, float]], np.ndarray]] = {
    "sum": _sum,
    "multiply": _multiply,
    "hard_and": _hard_and,
}

__all__ = ["COMBINATIONS", "combined"]
