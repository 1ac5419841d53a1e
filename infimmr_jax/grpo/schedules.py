"""Coefficients and learning rates as functions of the optimiser step."""

from __future__ import annotations

from collections.abc import Callable

import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from infimmr_jax.config import CoefficientSection, GrpoSection, OptimizerSection

Step = Int[Array, ""] | int

# Each maps the covered share of the way (0..1) to the share of the way down (0..1).
_CURVES: dict[str, Callable[[Array], Array]] = {
    "constant": lambda way: jnp.zeros_like(way),
    "linear": lambda way: way,
    "linear_then_flat": lambda way: way,
    "cosine": lambda way: 0.5 * (1.0 - jnp.cos(jnp.pi * way)),
}


@flax.struct.dataclass
class Coefficients:
    """The loss coefficients of one optimiser step."""

    kl: Float[Array, ""]
    entropy: Float[Array, ""]
    perception: Float[Array, ""]


def coefficients(config: GrpoSection, step: Step, total_steps: int) -> Coefficients:
    """Coefficients at optimiser step `step` (from 0) of a curriculum of `total_steps`; `step` may be traced."""
    return Coefficients(
        kl=coefficient_at(config.kl, step, total_steps),
        entropy=coefficient_at(config.entropy, step, total_steps),
        perception=coefficient_at(config.perception, step, total_steps),
    )


def coefficient_at(section: CoefficientSection, step: Step, total_steps: int) -> Float[Array, ""]:
    """One scheduled coefficient at `step` (from 0).

    With final_share f and way = clip((step - start) / (end - start), 0, 1): linear is c (1 - (1 - f) way), the linear
    decay then floor of HumanOmniV2; cosine is c (f + (1 - f) (1 + cos(pi way)) / 2), Visionary-R1's at f = 0.
    Raises ValueError when the schedule would start after its end.
    """
    if section.schedule == "constant":
        return jnp.asarray(section.coefficient)
    end = total_steps if section.end_step is None else section.end_step
    if end <= section.start_step:
        raise ValueError(
            f"the schedule starts at step {section.start_step}, but the curriculum has only {total_steps} steps; "
            "lower start_step or set end_step"
        )
    fall = _fall(section.schedule, step, section.start_step, end)
    return section.coefficient * (1.0 - (1.0 - section.final_share) * fall)


def learning_rate_schedule(
    config: OptimizerSection, total_steps: int, peak: float | None = None
) -> Callable[[Step], Float[Array, ""]]:
    """An optax schedule: linear warm-up, then the configured fall, reaching `final_share` where the run ends.

    `peak` replaces `config.learning_rate` (a phase's own rate). No step is wasted on a rate of 0: the first has
    1 / warmup_steps of the peak, and the fall ends one step after the last. Raises ValueError when the warm-up is as
    long as the run.
    """
    warmup = config.warmup_steps
    if warmup >= total_steps:
        raise ValueError(
            f"optimizer.warmup_steps {warmup} leaves nothing of the {total_steps} steps; make it smaller than the run"
        )
    top = config.learning_rate if peak is None else peak

    def schedule(step: Step) -> Float[Array, ""]:
        rise = jnp.minimum((jnp.asarray(step) + 1.0) / max(warmup, 1), 1.0)
        return top * rise * (1.0 - (1.0 - config.final_share) * _fall(config.schedule, step, warmup, total_steps))

    return schedule


def _fall(kind: str, step: Step, start: int, end: int) -> Array:
    return _CURVES[kind](jnp.clip((jnp.asarray(step) - start) / (end - start), 0.0, 1.0))


__all__ = ["Coefficients", "coefficient_at", "coefficients", "learning_rate_schedule"]
