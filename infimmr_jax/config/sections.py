"""The sections of a run, and of a policy that answers outside of one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from infimmr_jax.config.base import Section, UserPath
from infimmr_jax.config.data import DataSection, PhaseSection
from infimmr_jax.config.grpo import GrpoSection, RolloutSection
from infimmr_jax.config.model import ModelSection, PromptSection
from infimmr_jax.config.optimizer import OptimizerSection, TrainableSection
from infimmr_jax.config.reward import RewardSection
from infimmr_jax.config.schema import Kinds
from infimmr_jax.config.training import (
    CheckpointSection,
    EvaluationSection,
    GuardSection,
    LoggingSection,
    MeshSection,
    SftPhaseSection,
    SftSection,
)

PHASE_KINDS = Kinds(default="grpo", strict=True)
Phase = Annotated[PhaseSection | SftPhaseSection, PHASE_KINDS]
PHASES = PHASE_KINDS.members(PhaseSection | SftPhaseSection)


class PolicyConfig(Section):
    """What a policy needs to answer outside of a run: its model, the limits and words of prompts, the devices."""

    model: ModelSection
    data: DataSection = DataSection()
    prompt: PromptSection = PromptSection()
    mesh: MeshSection = MeshSection()


class RunSections(Section):
    """The sections of a run, each valid by itself; `RunConfig` also checks them against each other."""

    name: str = "run"
    seed: int = 0
    output: UserPath = Path("runs/run")
    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    prompt: PromptSection = PromptSection()
    sft: SftSection | None = None
    phases: tuple[Phase, ...] = Field(min_length=1)
    rollout: RolloutSection = RolloutSection()
    reward: RewardSection = RewardSection()
    grpo: GrpoSection = GrpoSection()
    optimizer: OptimizerSection = OptimizerSection()
    trainable: TrainableSection = TrainableSection()
    evaluation: EvaluationSection = EvaluationSection()
    checkpoint: CheckpointSection = CheckpointSection()
    guards: GuardSection = GuardSection()
    logging: LoggingSection = LoggingSection()
    mesh: MeshSection = MeshSection()

    @property
    def grpo_phases(self) -> tuple[PhaseSection, ...]:
        """The phases that learn by GRPO: the curriculum of problems."""
        return tuple(phase for phase in self.phases if isinstance(phase, PhaseSection))

    @property
    def demonstrations(self) -> tuple[SftSection | SftPhaseSection, ...]:
        """The sets of demonstrations in the order of their stages: the cold start's, then each supervised phase's."""
        phases = (phase for phase in self.phases if isinstance(phase, SftPhaseSection))
        return (*(() if self.sft is None else (self.sft,)), *phases)
