"""Which parameters move, and how fast: a factor on the learning rate for every leaf, or for every layer of a leaf."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import stop_gradient
from jaxtyping import PyTree

from infimmr_jax.config import ConfigError, TrainableSection
from infimmr_jax.model.trunk import Params

Factors = Any  # a tree like the parameters; leaves are floats, or float32 [L, 1, ..] for stacked layers
EVERYTHING = TrainableSection()


def part_of(names: tuple[str, ...]) -> str:
    """The part of `TrainableSection` that the parameter at this path belongs to."""
    if names[0] == "visual":
        return "merger" if names[1] == "merger" else "vision"
    return "embeddings" if names[1] in ("embed", "lm_head") else "decoder"


def learning_factors(params: Params, section: TrainableSection) -> Factors:
    """The factor on the learning rate of every parameter, 0 where it is frozen.

    `params` may be abstract. Raises ConfigError when `trainable.layers` names layers that the model has not.
    """
    count = jax.tree.leaves(params["decoder"]["layers"])[0].shape[0]
    chosen = _chosen(section, count)

    def one(path: tuple, leaf: PyTree) -> PyTree:
        names = tuple(str(key.key) for key in path)
        factor = float(getattr(section, part_of(names)))
        if names[:2] == ("decoder", "layers") and not chosen.all():
            return factor * chosen.astype(np.float32).reshape(-1, *[1] * (len(leaf.shape) - 1))
        return factor * float(chosen[-1]) if names[:2] == ("decoder", "norm") else factor

    return jax.tree_util.tree_map_with_path(one, params)


def _chosen(section: TrainableSection, count: int) -> np.ndarray:
    chosen = np.full(count, section.layers is None)
    for first, last in section.layers or ():
        start, end = (place + count if place < 0 else place for place in (first, last))
        if not 0 <= start <= end < count:
            raise ConfigError(
                f"trainable.layers: [{first}, {last}] is no range of the decoder's {count} layers, which are counted "
                f"from 0 to {count - 1}, or from -{count} to -1"
            )
        chosen[start : end + 1] = True
    return chosen


def moves(factor: PyTree) -> bool:
    """Whether any of a leaf's layers moves."""
    return bool(np.any(np.asarray(factor) > 0))


def thaws(earlier: Factors, later: Factors) -> bool:
    """Whether something moves later that did not move earlier."""
    pairs = zip(jax.tree.leaves(earlier), jax.tree.leaves(later), strict=True)
    return any(bool(np.any((np.asarray(b) > 0) & (np.asarray(a) == 0))) for a, b in pairs)


def frozen_stopped(params: Params, factors: Factors) -> Params:
    """The same parameters, without gradient where they are frozen: whole frozen leaves cost no backward pass."""

    def one(leaf: PyTree, factor: PyTree) -> PyTree:
        if not moves(factor):
            return stop_gradient(leaf)
        return leaf if np.all(np.asarray(factor) > 0) else jnp.where(np.asarray(factor) > 0, leaf, stop_gradient(leaf))

    return jax.tree.map(one, params, factors)


def moved_only(new: PyTree, old: PyTree, factor: PyTree) -> PyTree:
    """`new` where the factor lets the leaf move, else exactly `old`."""
    if not moves(factor):
        return old
    return new if np.all(np.asarray(factor) > 0) else jnp.where(np.asarray(factor) > 0, new, old)


def moved_moments(new: PyTree, old: PyTree, factors: Factors) -> PyTree:
    """Optimiser moments of frozen parameters stay as they are: they lie in dicts at their parameters' paths."""
    at = {_path(path, factors): factor for path, factor in jax.tree_util.tree_leaves_with_path(factors)}

    def one(path: tuple, new: PyTree, old: PyTree) -> PyTree:
        factor = at.get(_path(path, factors))
        return new if factor is None or np.shape(new) == () else moved_only(new, old, factor)

    return jax.tree_util.tree_map_with_path(one, new, old)


def _path(path: tuple, factors: Factors) -> tuple[str, ...]:
    """The path of a parameter inside a tree of moments; what lies above it are the names of optimisers."""
    names = [str(key.key) for key in path if isinstance(key, jax.tree_util.DictKey)]
    return tuple(names[next((i for i, name in enumerate(names) if name in factors), 0) :])


__all__ = [
    "EVERYTHING",
    "frozen_stopped",
    "learning_factors",
    "moved_moments",
    "moved_only",
    "moves",
    "part_of",
    "thaws",
]
