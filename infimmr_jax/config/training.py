"""Cold start, held-out evaluation, checkpoints, sinks, devices."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from infimmr_jax.config.base import Modality, PositiveInt, Section, Share
from infimmr_jax.config.data import SourceSection


class SftStage(Section):
    """One stage of the supervised cold start.

    Its learning rate falls in a line to `final_share` of itself; null takes `sft.learning_rate`. The held-out sets are
    evaluated at its end.
    """

    name: str = "cold start"
    steps: PositiveInt
    worked_share: Share = 1.0
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    final_share: Share = 0.1


class SftSection(Section):
    """Supervised cold start on demonstrations, before the first phase.

    `sources` are drawn from by weight, whatever their modality. `worked_share` of a stage is the share that shows the
    chain of thought; the rest, and problems without a `solution`, answer directly.
    """

    stages: tuple[SftStage, ...] = Field(min_length=1)
    sources: dict[Modality, tuple[SourceSection, ...]] = Field(min_length=1)
    batch_size: PositiveInt = 64
    max_response: PositiveInt = 48
    learning_rate: Annotated[float, Field(gt=0)] = 4e-3
    warmup_steps: Annotated[int, Field(ge=0)] = 20

    @model_validator(mode="after")
    def _warms_up(self) -> SftSection:
        if self.warmup_steps >= self.stages[0].steps:
            raise ValueError(
                f"warmup_steps {self.warmup_steps} must be fewer than the {self.stages[0].steps} steps of stage 0"
            )
        return self


class EvaluationSection(Section):
    """Held-out evaluation between the phases (greedy decoding)."""

    sources: dict[Modality, tuple[SourceSection, ...]] = Field(default_factory=dict)
    problems: PositiveInt = 256
    batch_size: PositiveInt = 128
    max_response: PositiveInt | None = None


class CheckpointSection(Section):
    """When checkpoints are written and how many are kept."""

    every_steps: PositiveInt = 20
    keep_last: PositiveInt = 2


class LoggingSection(Section):
    """Sinks besides `metrics.jsonl`, and how many groups of each step go to `transcripts.jsonl`."""

    tensorboard: bool = True
    wandb_project: str | None = None
    transcripts_every: PositiveInt = 5
    transcript_groups: PositiveInt = 2


class MeshSection(Section):
    """Device mesh: sizes of the axes; `data: -1` takes the devices that are left."""

    data: int = -1
    fsdp: PositiveInt = 1
    tensor: PositiveInt = 1
