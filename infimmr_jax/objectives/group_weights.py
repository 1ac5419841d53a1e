"""Factors on the advantages of a group, after normalisation: by difficulty, overlap or length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from infimmr_jax.config import ApoWeight, CogitoWeight, GroupWeightSection, ObserveWeight, OverlapWeight


def weigh_advantages(
    advantages: Float[Array, "P G"],
    components: Mapping[str, Float[Array, "P G"]],
    lengths: Int[Array, "P G"],
    config: GroupWeightSection,
    task: Int[Array, "P"] | None = None,
    task_names: Sequence[str] = (),
) -> Float[Array, "P G"]:
    """Multiply advantages by the configured weight, a constant without gradient.

    `components[config.component]` is the accuracy (univg: the overlap) of every response, `lengths` its tokens. With
    `config.tasks` only prompts of these tasks are weighed: `task` numbers them in the order of `task_names`. Raises
    ValueError when the component or a task's name is missing. Formulas and sources: docs/methods.md, "Group weights".
    """
    if config.kind == "none":
        return advantages
    if config.component not in components:
        raise ValueError(
            f"group weight {config.kind!r} reads the reward component {config.component!r}, the graders gave "
            f"{sorted(components)}; set grpo.group_weight.component to one of them"
        )
    accuracy = jnp.asarray(components[config.component], advantages.dtype)
    lengths = jnp.asarray(lengths, advantages.dtype)
    match config:
        case ObserveWeight():
            factor = _observe_r1(accuracy, config)
        case CogitoWeight():
            factor = _vl_cogito(accuracy, config)
        case OverlapWeight():
            factor = _univg(accuracy)
        case ApoWeight():
            factor = _apo(accuracy, lengths, config)
    if config.tasks is not None:
        unknown = sorted(set(config.tasks) - set(task_names))
        if task is None or unknown:
            raise ValueError(f"grpo.group_weight.tasks names {unknown}, the tasks of this run are {list(task_names)}")
        weighed = jnp.asarray([name in config.tasks for name in task_names])
        factor = jnp.where(weighed[task][:, None], factor, 1.0)
    return advantages * jax.lax.stop_gradient(factor)


def _right(accuracy: Array, config: ObserveWeight | ApoWeight) -> Array:
    return accuracy >= config.correct_from


def _observe_r1(accuracy: Array, config: ObserveWeight) -> Array:
    right = jnp.mean(_right(accuracy, config).astype(accuracy.dtype), axis=1, keepdims=True)
    return config.sigma * 4.0 * right * (1.0 - right)


def _vl_cogito(accuracy: Array, config: CogitoWeight) -> Array:
    mean = jnp.mean(accuracy, axis=1, keepdims=True)
    # sin(pi) is a little below 0 in floating point, and a negative weight would turn the gradient round.
    hump = jnp.maximum(jnp.sin(jnp.pi * mean), 0.0)
    if config.difficulty == "easy":
        return jnp.where(mean < 0.5, hump, 1.0)
    if config.difficulty == "medium":
        return hump
    return jnp.where(mean == 0, config.unsolved, jnp.where(mean <= 0.5, 1.0, hump))


def _univg(accuracy: Array) -> Array:
    return jnp.exp(1.0 - jnp.mean(accuracy, axis=1, keepdims=True))


def _apo(accuracy: Array, lengths: Array, config: ApoWeight) -> Array:
    right = _right(accuracy, config)
    count = jnp.sum(right, axis=1, keepdims=True)
    usual = jnp.sum(jnp.where(right, lengths, 0.0), axis=1, keepdims=True) / jnp.maximum(count, 1)
    excess = jnp.where(~right & (count > 0), jnp.maximum(lengths - usual, 0.0), 0.0)
    # 1 - base^-excess, by expm1: base is so close to 1 that float32 would lose half of the digits.
    return 1.0 - jnp.expm1(-excess * jnp.log1p(config.base - 1.0))


__all__ = ["weigh_advantages"]
