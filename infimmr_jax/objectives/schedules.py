"""Coefficients and learning rates as functions of the optimiser step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import flax.struct
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from infimmr_jax.config import CoefficientSection, GrpoSection, OptimizerSection

Step = Int[Array, ""] | int


@dataclasses.dataclass(frozen=True)
class Clock:
    """Where a step stands, from 0: in the curriculum as it is planned, and in its phase; each with its planned length.

    A phase that ends early leaves out the rest of its steps: the next one starts where the plan says, so its schedules
    do not depend on when the phase before it ended.
    """

    step: int
    total: int
    phase_step: int
    phase_total: int

    def of(self, span: str) -> tuple[int, int]:
        """(step, length) over the `run` or the `phase`."""
        return (self.phase_step, self.phase_total) if span == "phase" else (self.step, self.total)


# Each maps the covered share of the way (0..1) to the share of the way down (0..1).
_CURVES: dict[str, Callable[[Array], Array]] = {
    "constant": lambda way: jnp.zeros_like(way),
    "linear": lambda way: way,
    "linear_then_flat": lambda way: way,
    "cosine": lambda way: 0.5 * (1.0 - jnp.cos(jnp.pi * way)),
}


@flax.struct.dataclass
class Coefficients:
    """The loss coefficients of one step; `perception_share` is what the schedule leaves of PAPO's entropy terms."""

    kl: Float[Array, ""]
    entropy: Float[Array, ""]
    perception: Float[Array, ""]
    perception_share: Float[Array, ""] | float = 1.0


def coefficients(config: GrpoSection, clock: Clock) -> Coefficients:
    """The coefficients of one step, each counted over its own span."""
    return Coefficients(
        kl=coefficient_at(config.kl, *clock.of(config.kl.span)),
        entropy=coefficient_at(config.entropy, *clock.of(config.entropy.span)),
        perception=coefficient_at(config.perception, *clock.of(config.perception.span)),
        perception_share=coefficient_at(
            config.perception.model_copy(update={"coefficient": 1.0}), *clock.of(config.perception.span)
        ),
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


def _fall(kind: str, step: Step, start: int, end: int) -> Array:
    return _CURVES[kind](jnp.clip((jnp.asarray(step) - start) / (end - start), 0.0, 1.0))


def learning_rate(peak: float, risen: int, warmup: int, fall: float, number: type[np.floating] = np.float64) -> float:
    """Return the learning rate of a step: a linear rise to `peak`, of which the share `fall` is taken away.

    `risen` steps are made since the rise of `warmup` steps began; no step is wasted on a rate of 0, the first has
    1 / warmup of the peak. Computed in the precision of `number`.
    """
    rise = min(number(1), number(risen + 1) / number(max(1, warmup)))
    return float(number(peak) * rise * (number(1) - number(fall)))


def learning_rate_at(config: OptimizerSection, clock: Clock) -> float:
    """Return the learning rate of a GRPO step whose optimiser section is `config`, in float32.

    After the warm-up it falls by the schedule, to `final_share` of the peak one step after the last.
    Raises ValueError when the warm-up is as long as the span.
    """
    step, total = clock.of(config.span)
    if config.warmup_steps >= total:
        raise ValueError(
            f"optimizer.warmup_steps {config.warmup_steps} leaves nothing of the {total} steps; make it smaller than "
            "the run"
        )
    fall = np.float32(1.0 - config.final_share) * np.float32(_fall(config.schedule, step, config.warmup_steps, total))
    return learning_rate(config.learning_rate, step, config.warmup_steps, float(fall), np.float32)


def without_schedules(config: GrpoSection) -> GrpoSection:
    """The section with every coefficient that is not 0 a constant 1: what a compiled update depends on."""
    parts: dict[str, CoefficientSection] = {"kl": config.kl, "entropy": config.entropy, "perception": config.perception}
    plain = {name: getattr(CoefficientSection(), name) for name in CoefficientSection.model_fields}
    constant = {
        name: part.model_copy(update=plain | {"coefficient": float(part.coefficient > 0)})
        for name, part in parts.items()
    }
    return config.model_copy(update=constant)


def without_rates(config: OptimizerSection) -> OptimizerSection:
    """The section without its learning rate and schedule: what a compiled update depends on."""
    plain = OptimizerSection()
    rates = ("learning_rate", "schedule", "span", "warmup_steps", "final_share")
    return config.model_copy(update={name: getattr(plain, name) for name in rates})


__all__ = [
    "Clock",
    "Coefficients",
    "coefficient_at",
    "coefficients",
    "learning_rate",
    "learning_rate_at",
    "without_rates",
    "without_schedules",
]
