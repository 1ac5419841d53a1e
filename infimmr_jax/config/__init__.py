"""The run configuration: typed sections, read from YAML; every mistake is a sentence that names its key."""

from infimmr_jax.config.base import ConfigError, PositiveInt, Section, Share
from infimmr_jax.config.data import (
    CurationSection,
    DataSection,
    FilterSection,
    PhaseSection,
    PromotionSection,
    SourceSection,
)
from infimmr_jax.config.grpo import (
    CoefficientSection,
    DrawsSection,
    EntropySection,
    GroupWeightSection,
    GrpoSection,
    ImportanceSection,
    KlSection,
    OverlongSection,
    PerceptionSection,
    RolloutSection,
)
from infimmr_jax.config.load import apply_overrides, dump_config, dump_phases, load_config, parse_config
from infimmr_jax.config.model import ImageSection, ModelSection, ModelShape, PromptSection, VideoSection, VisionShape
from infimmr_jax.config.optimizer import OptimizerSection, TrainableSection
from infimmr_jax.config.reward import (
    ConsistencyTable,
    JudgeSection,
    LengthSection,
    RepetitionSection,
    RewardSection,
    SecondPassSection,
)
from infimmr_jax.config.run import RunConfig
from infimmr_jax.config.sections import PolicyConfig
from infimmr_jax.config.training import (
    CheckpointSection,
    EvaluationSection,
    GuardSection,
    KeepBestSection,
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
    "DrawsSection",
    "EntropySection",
    "EvaluationSection",
    "FilterSection",
    "GroupWeightSection",
    "GrpoSection",
    "GuardSection",
    "ImageSection",
    "ImportanceSection",
    "JudgeSection",
    "KeepBestSection",
    "KlSection",
    "LengthSection",
    "LoggingSection",
    "MeshSection",
    "ModelSection",
    "ModelShape",
    "OptimizerSection",
    "OverlongSection",
    "PerceptionSection",
    "PhaseSection",
    "PolicyConfig",
    "PositiveInt",
    "PromotionSection",
    "PromptSection",
    "RepetitionSection",
    "RewardSection",
    "RolloutSection",
    "RunConfig",
    "SecondPassSection",
    "Section",
    "SftSection",
    "SftStage",
    "Share",
    "SourceSection",
    "TrainableSection",
    "VideoSection",
    "VisionShape",
    "apply_overrides",
    "dump_config",
    "dump_phases",
    "load_config",
    "parse_config",
]
