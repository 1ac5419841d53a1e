"""Cold start, held-out evaluation, checkpoints, sinks, devices."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from infimmr_jax.config.base import PositiveInt, Section, Share, UserPathText
from infimmr_jax.config.data import SourceSection
from infimmr_jax.config.optimizer import TrainableSection
from infimmr_jax.names import Modality

# The numbers of a row of evals.jsonl that a checkpoint can be chosen by.
EVALUATED = ("accuracy", "format_rate", "length", "truncated", "worked_share")


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


class ConversationSource(Section):
    """A JSONL file below `data.root` of demonstrations in the messages form (see `data.conversations`)."""

    path: UserPathText
    size: PositiveInt | None = None
    weight: Annotated[float, Field(gt=0)] = 1.0


class DemonstrationSection(Section):
    """What supervised steps learn from, and how.

    `sources` and `conversations` are drawn from by weight, whatever their modality. Problems without a `solution`
    answer directly. Conversations are shown as they are, with a loss on every turn of the assistant. `max_response`
    bounds the tokens of one such turn. With `packed_length` several demonstrations share a row of that many tokens,
    without seeing each other: the same loss with less padding; conversations of several turns need it.
    """

    sources: dict[Modality, tuple[SourceSection, ...]] = Field(default_factory=dict)
    conversations: tuple[ConversationSource, ...] = ()
    packed_length: PositiveInt | None = None
    batch_size: PositiveInt = 64
    max_response: PositiveInt = 48
    learning_rate: Annotated[float, Field(gt=0)] = 4e-3
    warmup_steps: Annotated[int, Field(ge=0)] = 20

    @model_validator(mode="after")
    def _has_demonstrations(self) -> DemonstrationSection:
        if not any(self.sources.values()) and not self.conversations:
            raise ValueError("there is nothing to learn from: give `sources` (problems) or `conversations`")
        return self


class SftSection(DemonstrationSection):
    """Supervised cold start on demonstrations, before the first phase, in stages that share what they learn from.

    `worked_share` of a stage is the share of problems that show the chain of thought.
    """

    stages: tuple[SftStage, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _warms_up(self) -> SftSection:
        if self.warmup_steps >= self.stages[0].steps:
            raise ValueError(
                f"warmup_steps {self.warmup_steps} must be fewer than the {self.stages[0].steps} steps of stage 0"
            )
        return self


class SftPhaseSection(DemonstrationSection):
    """A phase of the curriculum that imitates demonstrations; its keys are those of `sft` and of one of its stages.

    It starts with fresh moments. `trainable` holds what differs from the run's section.
    """

    kind: Literal["sft"]
    name: str
    steps: PositiveInt
    worked_share: Share = 1.0
    final_share: Share = 0.1
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    trainable: TrainableSection = TrainableSection()

    @model_validator(mode="after")
    def _warms_up(self) -> SftPhaseSection:
        if self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} must be fewer than the {self.steps} steps of the phase")
        return self

    @property
    def stages(self) -> tuple[SftStage, ...]:
        """The phase as the only stage of its demonstrations."""
        own = self.model_dump(include={"name", "steps", "worked_share", "final_share"})
        return (SftStage(**own),)


class EvaluationSection(Section):
    """Held-out evaluation between the phases, and inside them every `every_steps` steps (greedy decoding).

    Inside phases the first `problems_inside` problems of each set are asked (null: all of them); their accuracies are
    metrics of the step, `heldout/MODALITY`, and `checkpoint.keep_best` looks at them too.
    """

    sources: dict[Modality, tuple[SourceSection, ...]] = Field(default_factory=dict)
    problems: PositiveInt = 256
    batch_size: PositiveInt = 128
    max_response: PositiveInt | None = None
    every_steps: PositiveInt | None = None
    problems_inside: PositiveInt | None = None

    @model_validator(mode="after")
    def _inside(self) -> EvaluationSection:
        if self.problems_inside is not None and self.every_steps is None:
            raise ValueError("`problems_inside` belongs to evaluations inside phases; set `every_steps` as well")
        if self.every_steps is not None and not self.sources:
            raise ValueError("`every_steps` needs `sources`: there is nothing to evaluate on")
        return self


class KeepBestSection(Section):
    """The best checkpoint by a number of the held-out evaluations, `modality/number`; ties go to the later one.

    Those inside phases count as well as those between them; without `evaluation.problems_inside` both ask the same.
    """

    metric: str
    mode: Literal["max", "min"] = "max"

    @model_validator(mode="after")
    def _known(self) -> KeepBestSection:
        modality, _, number = self.metric.partition("/")
        if modality not in get_args(Modality) or number not in EVALUATED:
            raise ValueError(
                f"metric {self.metric!r} is not of the form modality/number; modalities: "
                f"{', '.join(get_args(Modality))}; numbers: {', '.join(EVALUATED)}"
            )
        return self


class CheckpointSection(Section):
    """When checkpoints are written, where, and how many are kept.

    `directory` is a path that all machines share, or a bucket (`gs://`, `s3://`); default: `checkpoints` in `output`.
    `keep_best` keeps one more, and writes it as `model_best` at the end. `may_change` names keys (and all below) whose
    values may differ from those that a resumed checkpoint was made with.
    """

    every_steps: PositiveInt = 20
    keep_last: PositiveInt = 2
    directory: UserPathText | None = None
    keep_best: KeepBestSection | None = None
    may_change: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _storable(self) -> CheckpointSection:
        scheme, separator, _ = (self.directory or "").partition("://")
        if separator and scheme not in ("gs", "s3", "file"):
            raise ValueError(f"directory: checkpoints go to a path, gs:// or s3://, not to {scheme}://")
        return self


class GuardSection(Section):
    """What ends a run that can not go on.

    An update whose loss or gradient is not finite is skipped; `max_nonfinite` of them in a row stop the run, with the
    batch, the responses and their rewards saved. `stall_minutes` without a step (or an evaluated batch) write the
    stacks of all threads; `stall_exit` then ends the process with status 75, for a launcher to start it again.
    """

    max_nonfinite: PositiveInt = 3
    stall_minutes: Annotated[float, Field(gt=0)] = 30.0
    stall_exit: bool = False


class LoggingSection(Section):
    """Sinks besides `metrics.jsonl`, and how many groups of each step go to `transcripts.jsonl`."""

    tensorboard: bool = True
    wandb_project: str | None = None
    transcripts_every: PositiveInt = 5
    transcript_groups: PositiveInt = 2


class MeshSection(Section):
    """Device mesh: sizes of the axes; `data: -1` takes the devices that are left.

    `sequence` devices share their prompts: they split the tokens of every prompt and the responses of every group.
    """

    data: int = -1
    fsdp: PositiveInt = 1
    sequence: PositiveInt = 1
    tensor: PositiveInt = 1
