"""The run configuration: typed, read from YAML, overridden by `a.b=c`; an unknown key names the nearest known one."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

PositiveInt = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class ConfigError(ValueError):
    """The configuration can not be used: the message names the key and says what to do."""


class Section(BaseModel):
    """Base of every section: immutable, and closed against unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class VisionShape(Section):
    """Shape of a Qwen2.5-VL vision tower made from scratch."""

    hidden_size: PositiveInt = 64
    depth: PositiveInt = 2
    num_heads: PositiveInt = 4
    intermediate_size: PositiveInt = 128
    window_size: PositiveInt = 56
    fullatt_block_indexes: tuple[int, ...] = (1,)


class ModelShape(Section):
    """Shape of a Qwen2.5-VL made from scratch (`model.path: null`)."""

    hidden_size: PositiveInt = 96
    num_layers: PositiveInt = 3
    num_heads: PositiveInt = 4
    num_kv_heads: PositiveInt = 2
    intermediate_size: PositiveInt = 256
    mrope_section: tuple[int, int, int] = (4, 4, 4)
    rope_theta: float = 1e4
    tie_word_embeddings: bool = True
    vision: VisionShape = VisionShape()


class ModelSection(Section):
    """Which policy is trained: a Hugging Face directory, or one made from scratch in the given shape."""

    path: Path | None = None
    shape: ModelShape = ModelShape()
    vocab_size: PositiveInt = 512
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    param_dtype: Literal["float32", "bfloat16"] = "float32"
    remat: Literal["none", "full", "dots"] = "none"


class ImageSection(Section):
    """Pixel budget of an image, in pixels of the resized image (multiples of 28 x 28)."""

    min_pixels: PositiveInt = 56 * 56
    max_pixels: PositiveInt = 1280 * 28 * 28
    max_file_pixels: PositiveInt = 64_000_000


class PromptSection(Section):
    """How a problem becomes a prompt: the response format asked for and the chat template's system text."""

    format: Literal["think_boxed", "boxed"] = "think_boxed"
    system: str | None = None
    instruction: str | None = None


class SourceSection(Section):
    """One source of problems: a reader with its path below `data.root`, or procedural families; and its mixing weight."""

    reader: Literal["jsonl", "synthetic"]
    path: str | None = None
    families: tuple[str, ...] = ()
    style: str = "plain"
    split: Literal["train", "heldout"] = "train"
    size: PositiveInt | None = None
    seed: int = 0
    weight: Annotated[float, Field(gt=0)] = 1.0

    @model_validator(mode="after")
    def _complete(self) -> SourceSection:
        if self.reader == "jsonl" and self.path is None:
            raise ValueError("reader 'jsonl' needs `path`, a file below `data.root`")
        if self.reader == "synthetic" and (not self.families or self.size is None):
            raise ValueError("reader 'synthetic' needs `families` (a list of names) and `size` (number of problems)")
        return self


class FilterSection(Section):
    """Which problems of a phase's sources are kept."""

    answer_types: tuple[Literal["math", "choice", "string"], ...] | None = None
    min_level: float | None = None
    max_level: float | None = None


Modality = Literal["text", "caption", "image"]


class PhaseSection(Section):
    """One phase of the curriculum.

    `modality` says what the prompt shows: `text` no image, `caption` image and caption, `image` the image alone.
    """

    name: str
    modality: Modality
    steps: PositiveInt
    sources: tuple[SourceSection, ...] = Field(min_length=1)
    filters: FilterSection = FilterSection()
    order: Literal["shuffle", "file", "easy_to_hard"] = "shuffle"
    prompts_per_step: PositiveInt = 32
    group_size: Annotated[int, Field(ge=2)] = 8
    max_response: PositiveInt = 48
    learning_rate: Annotated[float, Field(gt=0)] | None = None


class DataSection(Section):
    """Where data lie, and the static shapes that prompts and images are padded to."""

    root: Path | None = None
    max_prompt: PositiveInt = 64
    prompt_buckets: tuple[PositiveInt, ...] = ()
    image_buckets: tuple[tuple[int, int], ...] = ()
    max_images: PositiveInt = 1
    image: ImageSection = ImageSection()
    prefetch: PositiveInt = 4
    threads: PositiveInt = 1


class SftStage(Section):
    """One stage of the supervised cold start."""

    steps: PositiveInt
    worked_share: Share = 1.0


class SftSection(Section):
    """Supervised cold start on worked solutions, before the first phase.

    `worked_share` of a stage is the share of demonstrations that show the chain of thought; the rest answer directly.
    """

    stages: tuple[SftStage, ...] = Field(min_length=1)
    sources: tuple[SourceSection, ...] = Field(min_length=1)
    modalities: dict[Modality, float] = Field(default_factory=lambda: {"text": 1.0, "caption": 1.0, "image": 1.0})
    batch_size: PositiveInt = 64
    max_response: PositiveInt = 48
    learning_rate: Annotated[float, Field(gt=0)] = 4e-3
    warmup_steps: Annotated[int, Field(ge=0)] = 20


class RewardSection(Section):
    """Weights of the reward components, and the pool of grader processes."""

    weights: dict[str, float] = Field(default_factory=lambda: {"accuracy": 0.9, "format": 0.1})
    workers: Annotated[int, Field(ge=0)] = 1
    deadline_seconds: Annotated[float, Field(gt=0)] = 4.0
    memory_mb: PositiveInt = 1024


class RolloutSection(Section):
    """How responses are sampled."""

    temperature: Annotated[float, Field(ge=0.0)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0


class GrpoSection(Section):
    """The policy update: advantage estimator, objective, aggregation, KL."""

    estimator: Literal["grpo", "no_std", "batch_std", "rloo"] = "grpo"
    objective: Literal["ppo_clip"] = "ppo_clip"
    clip_low: Annotated[float, Field(gt=0)] = 0.2
    clip_high: Annotated[float, Field(gt=0)] = 0.28
    aggregation: Literal["token_mean", "sequence_mean", "constant"] = "token_mean"
    kl_coefficient: Annotated[float, Field(ge=0)] = 0.0
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"
    entropy_coefficient: float = 0.0
    updates_per_batch: PositiveInt = 1
    micro_batches: PositiveInt = 1
    logprob_chunk: PositiveInt = 1024


class OptimizerSection(Section):
    """AdamW with global-norm clipping; the schedule spans the whole curriculum."""

    learning_rate: Annotated[float, Field(gt=0)] = 1e-6
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    beta1: Share = 0.9
    beta2: Share = 0.99
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0


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


class RunConfig(Section):
    """Everything a run is made of."""

    name: str = "run"
    seed: int = 0
    output: Path = Path("runs/run")
    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    prompt: PromptSection = PromptSection()
    sft: SftSection | None = None
    phases: tuple[PhaseSection, ...] = Field(min_length=1)
    rollout: RolloutSection = RolloutSection()
    reward: RewardSection = RewardSection()
    grpo: GrpoSection = GrpoSection()
    optimizer: OptimizerSection = OptimizerSection()
    evaluation: EvaluationSection = EvaluationSection()
    checkpoint: CheckpointSection = CheckpointSection()
    logging: LoggingSection = LoggingSection()
    mesh: MeshSection = MeshSection()

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        names = [phase.name for phase in self.phases]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"phase names must differ; {twice} appear twice")
        return self


def apply_overrides(tree: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """Return `tree` with every `a.b.0.c=value` applied; values are read as YAML, list items by index."""
    tree = yaml.safe_load(yaml.safe_dump(tree))
    for item in overrides:
        key, equals, text = item.partition("=")
        if not equals or not key:
            raise ConfigError(f"override {item!r} is not of the form key.subkey=value")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"the value of override {item!r} is not valid YAML: {error}") from error
        node: Any = tree
        *path, last = key.split(".")
        for depth, part in enumerate(path):
            where = ".".join(path[: depth + 1])
            if isinstance(node, list):
                node = node[_index(node, part, where)]
            else:
                if node.get(part) is None:
                    node[part] = {}
                node = node[part]
            if not isinstance(node, dict | list):
                raise ConfigError(f"override {item!r}: {where} is a single value, it has no key below it")
        if isinstance(node, list):
            node[_index(node, last, key)] = value
        else:
            node[last] = value
    return tree


def _index(items: list[Any], part: str, where: str) -> int:
    if not part.isdigit() or int(part) >= len(items):
        raise ConfigError(f"{where}: {part!r} is not an index of a list of {len(items)} items (0 is the first)")
    return int(part)


def load_config(path: Path, overrides: list[str] | None = None) -> RunConfig:
    """Read a YAML file into a RunConfig; errors are ConfigError sentences that name every bad key."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"there is no configuration file {path}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold a mapping of sections, it holds {type(tree).__name__}")
    return parse_config(apply_overrides(tree, overrides or []), str(path))


def parse_config(tree: dict[str, Any], origin: str = "the configuration") -> RunConfig:
    """Validate a plain tree; see `load_config`."""
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        found = error.errors()
        # A bad list item makes its list "too short" as well: only the item's own sentence helps.
        shown = [e for e in found if not any(o is not e and o["loc"][: len(e["loc"])] == e["loc"] for o in found)]
        sentences = [_sentence(item) for item in shown]
        raise ConfigError(f"{origin} can not be used:\n  " + "\n  ".join(sentences)) from None


def dump_config(config: RunConfig) -> str:
    """The resolved configuration as YAML; `load_config` of it gives an equal RunConfig."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _sentence(item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"]) or "top level"
    if item["type"] != "extra_forbidden":
        return f"{where}: {item['msg']} (got {item['input']!r:.80})"
    known = list(_section_at(item["loc"][:-1]).model_fields)
    near = difflib.get_close_matches(str(item["loc"][-1]), known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else f"known keys here: {', '.join(known)}"
    return f"{where}: unknown key; {hint}"


def _section_at(location: tuple[int | str, ...]) -> type[Section]:
    """The Section class at a validation error's location."""
    current: Any = RunConfig
    for part in location:
        if isinstance(current, type) and issubclass(current, BaseModel) and part in current.model_fields:
            current = current.model_fields[part].annotation
        current = _inner_section(current)
    return current if isinstance(current, type) and issubclass(current, Section) else RunConfig


def _inner_section(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    arguments = getattr(annotation, "__args__", ())
    for argument in arguments:
        found = _inner_section(argument)
        if isinstance(found, type) and issubclass(found, BaseModel):
            return found
    return annotation


__all__ = ["ConfigError", "RunConfig", "Section", "apply_overrides", "dump_config", "load_config", "parse_config"]
