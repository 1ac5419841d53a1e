"""The run configuration: typed sections, read from YAML; every mistake is a sentence that names its key."""

from infimmr_jax.config.base import ConfigError, Modality, PositiveInt, Section, Share
from infimmr_jax.config.data import CurationSection, DataSection, FilterSection, PhaseSection, SourceSection
from infimmr_jax.config.grpo import (
    CoefficientSection,
    EntropySection,
    GroupWeightSection,
    GrpoSection,
    ImportanceSection,
    KlSection,
    OptimizerSection,
    OverlongSection,
    PerceptionSection,
    RolloutSection,
)
from infimmr_jax.config.model import ImageSection, ModelSection, ModelShape, PromptSection, VideoSection, VisionShape
from infimmr_jax.config.reward import ConsistencyTable, JudgeSection, RewardSection, SecondPassSection
from infimmr_jax.config.run import RunConfig, apply_overrides, dump_config, load_config, parse_config
from infimmr_jax.config.training import (
    CheckpointSection,
    EvaluationSection,
    LoggingSection,
    MeshSection,
    SftSection,
    SftStage,
)

__all__ = [
    "CheckpointSection",
    "CoefficientSection",
    "ConfigError",
    "ConsistencyTable",
    "CurationSection",
    "DataSection",
    "EntropySection",
    "EvaluationSection",
    "FilterSection",
    "GroupWeightSection",
    "GrpoSection",
    "ImageSection",
    "ImportanceSection",
    "JudgeSection",
    "KlSection",
    "LoggingSection",
    "MeshSection",
    "Modality",
    "ModelSection",
    "ModelShape",
    "OptimizerSection",
    "OverlongSection",
    "PerceptionSection",
    "PhaseSection",
    "PositiveInt",
    "PromptSection",
    "RewardSection",
    "RolloutSection",
    "RunConfig",
    "SecondPassSection",
    "Section",
    "SftSection",
    "SftStage",
    "Share",
    "SourceSection",
    "VideoSection",
    "VisionShape",
    "apply_overrides",
    "dump_config",
    "load_config",
    "parse_config",
]
