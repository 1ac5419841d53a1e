"""When a phase has done its work: after its steps, on a plateau, at a held-out accuracy, or after so many tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from infimmr_jax.config import PhaseSection, PromotionSection
from infimmr_jax.data.records import Problem
from infimmr_jax.names import JsonObject, JsonValue, Modality
from infimmr_jax.training.stage import Measure


def plateau_gain(history: Sequence[float], window: int) -> float | None:
    """Mean of the last `window` values minus the mean of the `window` before them; None while there are fewer."""
    if len(history) < 2 * window:
        return None
    return float(np.mean(history[-window:]) - np.mean(history[-2 * window : -window]))


# The metric of a step that a rule looks at: of all groups drawn where a step draws several times, else of the batch.
WATCHED = {
    "plateau": ("sampling/accuracy", "reward/accuracy"),
    "tokens": ("sampling/tokens", "rollout/tokens"),
}


def extend_history(
    history: tuple[float, ...],
    row: Mapping[str, JsonValue],
    read: Callable[[], Mapping[str, float]],
    promotion: PromotionSection,
) -> tuple[float, ...]:
    """What a later decision can need, with this step's part of it; it is in every checkpoint.

    Training accuracies for `plateau`, the tokens sampled so far for `tokens`. `row` is what the host knows of the step,
    `read` waits for the rest; it is called only where it is needed.
    """
    if promotion.kind != "plateau" and promotion.kind != "tokens":
        return ()
    over_draws, of_batch = WATCHED[promotion.kind]
    value = row[over_draws] if over_draws in row else read()[of_batch]
    if promotion.kind == "tokens":
        return (sum(history) + value,)
    return (*history, value)[-2 * promotion.window :]


def promotion_due(
    phase: PhaseSection,
    step_in_phase: int,
    recent: tuple[float, ...],
    measure: Measure,
    heldout: Mapping[Modality, Sequence[Problem]],
) -> tuple[bool, JsonObject]:
    """Decide whether the phase ends after this step, the same on every host; also the numbers that decided.

    `recent` is the history that `extend_history` made, `heldout` the held-out problems by modality.
    """
    rule, made = phase.promotion, step_in_phase + 1
    if rule.kind == "plateau":
        gain = plateau_gain(recent, rule.window)
        if gain is None:
            return False, {}
        return made >= rule.min_steps and gain < rule.least_gain, {"promotion/gain": gain}
    if rule.kind == "tokens":
        (sampled,) = recent
        return made >= rule.min_steps and sampled >= rule.tokens, {"promotion/tokens": sampled}
    if rule.kind == "accuracy" and made >= rule.min_steps:
        if made % rule.every:
            return False, {}
        numbers = measure(phase.modality, heldout[phase.modality][: rule.problems])
        why = {"promotion/accuracy": numbers["accuracy"], "time/promotion": numbers["time/evaluation"]}
        return numbers["accuracy"] >= rule.at_least, why
    return False, {}


__all__ = ["extend_history", "plateau_gain", "promotion_due"]
