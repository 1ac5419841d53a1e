"""The kinds of stages, and the stages of a run in their order."""

from __future__ import annotations

from collections.abc import Callable

from infimmr_jax.config import StageSpec, stage_specs
from infimmr_jax.training.stage import Stage, StageInputs, Start
from infimmr_jax.training.stages.grpo_stage import GrpoStage
from infimmr_jax.training.stages.sft_stage import SftStage

STAGES: dict[str, Callable[[StageInputs, StageSpec], Stage]] = {
    "grpo": GrpoStage,
    "sft": SftStage,
}


def build_stages(inputs: StageInputs) -> list[Stage | Start]:
    """Return the stages of a run: its cold start, or the start as it is given, and then the phases."""
    specs = stage_specs(inputs.setup.config)
    stages: list[Stage | Start] = [STAGES[spec.kind](inputs, spec) for spec in specs]
    return stages if specs[0].kind == "sft" else [Start(), *stages]


__all__ = ["STAGES", "build_stages"]
