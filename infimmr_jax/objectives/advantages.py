"""Advantage estimators: rewards of a group become advantages; chosen by name from the dict literal `ESTIMATORS`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from infimmr_jax.config import GrpoSection


@flax.struct.dataclass
class EstimatorState:
    """What an estimator remembers between steps, one entry per task; zeros when it remembers nothing.

    `mean` and `square` are running means of the rewards and of their squares; `seen` counts the steps with that task.
    """

    mean: Float[Array, "K"]
    square: Float[Array, "K"]
    seen: Int[Array, "K"]


def init_estimator_state(num_tasks: int) -> EstimatorState:
    """State before the first step; `num_tasks` is the number of distinct values of `task` given to `advantages`."""
    return EstimatorState(jnp.zeros(num_tasks), jnp.zeros(num_tasks), jnp.zeros(num_tasks, jnp.int32))


def advantages(
    rewards: Float[Array, "P G"],
    components: Mapping[str, Float[Array, "P G"]],
    weights: Mapping[str, float],
    config: GrpoSection,
    state: EstimatorState,
    task: Int[Array, "P"],
    usable: Bool[Array, "P"] | None = None,
) -> tuple[Float[Array, "P G"], EstimatorState]:
    """Advantages of every response, and the estimator's next state.

    `rewards` is the total reward; `components` and their `weights` are read by the estimators that normalise
    components apart; `task` numbers the task of each prompt from 0. A group whose rewards are all equal gets exactly
    0, whatever the rounding, and so does one that is not `usable` (None: all are). Statistics over the batch and those
    kept between steps are over all usable groups given, so under `jit` with P sharded they are global.
    Raises ValueError when a weighted component is missing. Formulas and sources: docs/methods.md, "Advantages".
    """
    missing = sorted(set(weights) - set(components)) if config.estimator in _BY_COMPONENT else []
    if missing:
        raise ValueError(
            f"estimator {config.estimator!r} needs the reward components {missing}, the graders gave "
            f"{sorted(components)}; remove their weights or add the graders"
        )
    if config.estimator in _BY_COMPONENT and not sum(weights.values()) > 0:
        raise ValueError(
            f"estimator {config.estimator!r} needs reward weights with a positive sum, they are {dict(weights)}"
        )
    usable = jnp.ones(rewards.shape[0], bool) if usable is None else usable
    rewards = jnp.where(usable[:, None], _at_least_float32(rewards), 0.0)
    components = {name: jnp.where(usable[:, None], values, 0) for name, values in components.items()}
    group = GroupRewards(rewards, components, weights, state, task, usable)
    values, state = ESTIMATORS[config.estimator](group, config)
    if config.advantage_clip is not None:
        values = jnp.clip(values, -config.advantage_clip, config.advantage_clip)
    return jax.lax.stop_gradient(values), state


def has_signal(rewards: Float[Array, "P G"]) -> Bool[Array, "P"]:
    """Whether a group's rewards differ: only then can the group move the policy."""
    return jnp.max(rewards, axis=1) > jnp.min(rewards, axis=1)


def _at_least_float32(x: Array) -> Array:
    return jnp.asarray(x, jnp.promote_types(jnp.result_type(x), jnp.float32))


def _centred(rewards: Array) -> Array:
    """Rewards minus their group mean, exactly 0 where a group has no signal (a rounded mean would leave dust)."""
    return jnp.where(has_signal(rewards)[:, None], rewards - jnp.mean(rewards, axis=1, keepdims=True), 0.0)


def _std(x: Array, ddof: int) -> Array:
    """Standard deviation of each group; its squares can not overflow: one huge reward must not turn into inf or NaN."""
    x = x - jnp.mean(x, axis=1, keepdims=True)
    return _root_of_squares(x, 1, x.shape[1] - ddof)


def _batch_spread(x: Array, usable: Array) -> Array:
    """Standard deviation over the responses of all usable groups."""
    rows = usable[:, None]
    count = jnp.sum(usable) * x.shape[1]
    mean = jnp.sum(jnp.where(rows, x, 0.0)) / jnp.maximum(count, 1)
    return _root_of_squares(jnp.where(rows, x - mean, 0.0), None, jnp.maximum(count - 1, 1))


def _root_of_squares(x: Array, axis: int | None, count: Array | int) -> Array:
    size = jnp.max(jnp.abs(x), axis=axis, keepdims=True)
    safe = jnp.where(size > 0, size, 1.0)
    return safe * jnp.sqrt(jnp.sum((x / safe) ** 2, axis=axis, keepdims=True) / count) * (size > 0)


@dataclasses.dataclass(frozen=True)
class GroupRewards:
    """What an estimator is given: total rewards, components with their weights, what it remembers, and each prompt's
    task; groups that are not `usable` have rewards of 0 and count in no statistic."""

    total: Float[Array, "P G"]
    components: Mapping[str, Float[Array, "P G"]]
    weights: Mapping[str, float]
    state: EstimatorState
    task: Int[Array, "P"]
    usable: Bool[Array, "P"]


Estimates = tuple[Float[Array, "P G"], EstimatorState]


def _grpo(group: GroupRewards, config: GrpoSection) -> Estimates:
    return _centred(group.total) / (_std(group.total, 1) + config.std_epsilon), group.state


def _no_std(group: GroupRewards, config: GrpoSection) -> Estimates:
    return _centred(group.total), group.state


def _batch_std(group: GroupRewards, config: GrpoSection) -> Estimates:
    spread = _batch_spread(group.total, group.usable)
    return _centred(group.total) / (spread + config.std_epsilon), group.state


def _rloo(group: GroupRewards, config: GrpoSection) -> Estimates:
    size = group.total.shape[1]
    # The mean of the others is the group mean moved by the response's own share, so the difference is a scaling.
    return _centred(group.total) * (size / (size - 1)), group.state


def _reinforce_baseline(group: GroupRewards, config: GrpoSection) -> Estimates:
    centred = _centred(group.total)
    return centred / (_batch_spread(centred, group.usable) + config.std_epsilon), group.state


def _per_component(group: GroupRewards, config: GrpoSection) -> Float[Array, "P G"]:
    parts = []
    for name, weight in group.weights.items():
        rewards = _at_least_float32(group.components[name])
        parts.append(weight * _centred(rewards) / (_std(rewards, 1) + config.std_epsilon))
    return sum(parts[1:], 0.0 + parts[0])


def _gdpo(group: GroupRewards, config: GrpoSection) -> Estimates:
    summed = _centred(_per_component(group, config))
    return summed / (_batch_spread(summed, group.usable) + config.std_epsilon), group.state


def _component_mean(group: GroupRewards, config: GrpoSection) -> Estimates:
    return _per_component(group, config) / sum(group.weights.values()), group.state


def _ema_std(group: GroupRewards, config: GrpoSection) -> Estimates:
    rewards, state, task, usable = group.total, group.state, group.task, group.usable
    tasks = state.seen.shape[0]
    prompts = jax.ops.segment_sum(usable.astype(rewards.dtype), task, tasks)
    present = prompts > 0
    count = jnp.where(present, prompts, 1.0)

    def moved(old: Array, values: Array) -> Array:
        means = jnp.where(usable, jnp.mean(values, axis=1), 0.0)
        batch = jax.ops.segment_sum(means, task, tasks) / count
        decay = jnp.where(state.seen > 0, config.ema_decay, 0.0)
        return jnp.where(present, decay * old + (1 - decay) * batch, old).astype(old.dtype)

    state = EstimatorState(
        mean=moved(state.mean, rewards),
        square=moved(state.square, rewards**2),
        seen=state.seen + present.astype(state.seen.dtype),
    )
    # The paper's code updates first and scales after; the floor under the variance is its own, too.
    spread = jnp.sqrt(jnp.maximum(state.square - state.mean**2, 1e-6))[task]
    centred = _centred(rewards)
    scaled = centred / (spread[:, None] + config.std_epsilon)
    outside = jnp.any(jnp.abs(scaled) > config.ema_fallback, axis=1, keepdims=True)
    return jnp.where(outside, centred / (_std(rewards, 0) + config.std_epsilon), scaled), state


_BY_COMPONENT = ("gdpo", "component_mean")

ESTIMATORS: dict[str, Callable[[GroupRewards, GrpoSection], Estimates]] = {
    "grpo": _grpo,
    "no_std": _no_std,
    "batch_std": _batch_std,
    "rloo": _rloo,
    "reinforce_baseline": _reinforce_baseline,
    "gdpo": _gdpo,
    "component_mean": _component_mean,
    "ema_std": _ema_std,
}

__all__ = ["ESTIMATORS", "EstimatorState", "GroupRewards", "advantages", "has_signal", "init_estimator_state"]
