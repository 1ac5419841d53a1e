"""The run configuration: typed, read from YAML, overridden by `a.b=c`; an unknown key names the nearest known one."""

from __future__ import annotations

import copy
import difflib
import re
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
    attention: Literal["auto", "xla", "splash", "cudnn"] = "auto"


class ImageSection(Section):
    """Pixel budget of an image, in pixels of the resized image (multiples of 28 x 28)."""

    min_pixels: PositiveInt = 56 * 56
    max_pixels: PositiveInt = 1280 * 28 * 28
    max_file_pixels: PositiveInt = 64_000_000

    @model_validator(mode="after")
    def _ordered(self) -> ImageSection:
        if self.min_pixels > self.max_pixels:
            raise ValueError(f"min_pixels {self.min_pixels} is above max_pixels {self.max_pixels}")
        return self


class VideoSection(Section):
    """Sampling of a video's frames, and the pixel budget of one frame after resizing.

    `max_tokens` bounds the visual tokens of a whole video: each frame's budget is an even share of 90% of it.
    """

    fps: Annotated[float, Field(gt=0)] = 2.0
    min_frames: PositiveInt = 4
    max_frames: PositiveInt = 768
    min_pixels: PositiveInt = 128 * 28 * 28
    max_pixels: PositiveInt = 768 * 28 * 28
    max_tokens: PositiveInt | None = 128_000

    @model_validator(mode="after")
    def _ordered(self) -> VideoSection:
        if self.min_pixels > self.max_pixels or self.min_frames > self.max_frames:
            raise ValueError("min_pixels and min_frames must not be above max_pixels and max_frames")
        return self


class PromptSection(Section):
    """How a problem becomes a prompt: the response format asked for and the chat template's system text."""

    format: Literal["think_boxed", "boxed"] = "think_boxed"
    system: str | None = None
    instruction: str | None = None


class SourceSection(Section):
    """One source of problems: a reader with its path below `data.root`, or procedural families; and its mixing weight.

    `reader` names the layout of the file or folder (`jsonl` is the common layout of the README, `fields` takes any
    records with customary names, `tfds` reads what `prepare` wrote). Image paths are relative to the file's folder, or
    to `images`. `captions` and `pass_rates` are JSON-lines files with an `id` and a `caption` or `pass_rate` a line; a
    problem with a pass rate gets the level 1 - pass rate. All paths lie below `data.root`.
    """

    reader: Literal[
        "jsonl", "synthetic", "tfds", "fields", "gsm8k", "math", "math_folder", "virl39k", "geometry3k_folder"
    ]
    path: str | None = None
    images: str | None = None
    captions: str | None = None
    pass_rates: str | None = None
    families: tuple[str, ...] = ()
    style: str = "plain"
    split: Literal["train", "heldout"] = "train"
    size: PositiveInt | None = None
    seed: int = 0
    weight: Annotated[float, Field(gt=0)] = 1.0

    @model_validator(mode="after")
    def _complete(self) -> SourceSection:
        if self.reader == "synthetic":
            if not self.families or self.size is None:
                raise ValueError(
                    "reader 'synthetic' needs `families` (a list of names) and `size` (number of problems)"
                )
            if self.path or self.images or self.captions or self.pass_rates:
                raise ValueError("reader 'synthetic' takes no `path`, `images`, `captions` or `pass_rates`")
        elif self.path is None:
            raise ValueError(f"reader {self.reader!r} needs `path`, a file or folder below `data.root`")
        elif self.families:
            raise ValueError(f"reader {self.reader!r} takes no `families`; they belong to reader 'synthetic'")
        if self.reader == "tfds" and self.images:
            raise ValueError("reader 'tfds' takes no `images`: the converted files hold the images themselves")
        return self


class FilterSection(Section):
    """Which problems of a phase's sources are kept.

    The pass-rate bounds and `min_image_gap` (pass rate with the picture minus the one without) need a source with
    `pass_rates`; a problem that has none is left out.
    """

    answer_types: tuple[Literal["math", "choice", "string"], ...] | None = None
    min_level: float | None = None
    max_level: float | None = None
    min_pass_rate: Share | None = None
    max_pass_rate: Share | None = None
    min_image_gap: Annotated[float, Field(ge=-1.0, le=1.0)] | None = None


Modality = Literal["text", "caption", "image"]


class PhaseSection(Section):
    """One phase of the curriculum.

    `modality` says what the prompt shows: `text` no image, `caption` image and caption, `image` the image alone.
    `caption_dropout` is the share of a caption phase's problems that are shown without their caption, at its first and
    at its last step (linear in between).
    """

    name: str
    modality: Modality
    steps: PositiveInt
    sources: tuple[SourceSection, ...] = Field(min_length=1)
    filters: FilterSection = FilterSection()
    caption_dropout: tuple[Share, Share] = (0.0, 0.0)
    order: Literal["shuffle", "file", "easy_to_hard"] = "shuffle"
    prompts_per_step: PositiveInt = 32
    group_size: Annotated[int, Field(ge=2)] = 8
    max_response: PositiveInt = 48
    learning_rate: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _captioned(self) -> PhaseSection:
        if self.caption_dropout != (0.0, 0.0) and self.modality != "caption":
            raise ValueError(f"phase {self.name!r}: `caption_dropout` needs modality 'caption', not {self.modality!r}")
        return self


class CurationSection(Section):
    """What `prepare` leaves out: repetitions, copies of benchmark problems, and the excess of a source or subject.

    Text measures are Jaccard similarity of word 3-grams (`near_duplicate`) and overlap of word pairs weighted by their
    rarity (`text_overlap`).
    Picture measures are shares of differing bits of a perceptual hash: below `same_image` two pictures are one, below
    `copied_image` a picture is a benchmark's, below `similar_image` it is one together with a text overlap.
    `image_cosine` also compares pictures by the vision tower of `model.path`.
    """

    near_duplicate: Share | None = 0.8
    same_image: Share = 0.06
    benchmarks: tuple[SourceSection, ...] = ()
    text_overlap: Share = 0.5
    similar_image: Share = 0.25
    copied_image: Share = 0.12
    image_cosine: Share | None = None
    balance_by: Literal["source", "subject"] | None = None
    balance_at_most: PositiveInt | None = None

    @model_validator(mode="after")
    def _balanced(self) -> CurationSection:
        if (self.balance_by is None) != (self.balance_at_most is None):
            raise ValueError("`balance_by` and `balance_at_most` belong together: give both or neither")
        return self


class DataSection(Section):
    """Where data lie, and the static shapes that prompts and images are padded to."""

    root: Path | None = None
    max_prompt: PositiveInt = 64
    prompt_buckets: tuple[PositiveInt, ...] = ()
    image_buckets: tuple[tuple[int, int], ...] = ()
    max_images: PositiveInt = 1
    image: ImageSection = ImageSection()
    curation: CurationSection = CurationSection()
    prefetch: PositiveInt = 4
    threads: PositiveInt = 1


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


class JudgeSection(Section):
    """A judge of responses: your function `module:function`, or an OpenAI-compatible endpoint on a host of your own.

    `prompt` may hold {question}, {gold} and {response}; the reply must end with a line of 1 or 0.
    """

    function: str | None = None
    endpoint: str | None = None
    model: str | None = None
    prompt: str | None = None
    timeout_seconds: Annotated[float, Field(gt=0)] = 60.0
    attempts: PositiveInt = 2
    parallel: PositiveInt = 8

    @model_validator(mode="after")
    def _usable(self) -> JudgeSection:
        if (self.function is None) == (self.endpoint is None):
            raise ValueError("give either `function` (module:function) or `endpoint` (http://host:port/v1), not both")
        if self.endpoint is not None and (self.model is None or not self.endpoint.startswith(("http://", "https://"))):
            raise ValueError("`endpoint` must start with http:// or https:// and needs `model`, the name served there")
        if self.prompt is not None:
            try:
                self.prompt.format(question="", gold="", response="")
            except (KeyError, IndexError, ValueError):
                raise ValueError("`prompt` may hold {question}, {gold}, {response}; write other braces twice") from None
        return self


class ConsistencyTable(Section):
    """Rewards of `option_consistency`: both answers right, only the first, only the one to shuffled options."""

    both: float = 1.0
    first: float = 0.5
    second: float = 0.25


class SecondPassSection(Section):
    """Rewards that ask the policy again: the length limit of that pass, and the consistency table."""

    max_response: PositiveInt = 32
    consistency: ConsistencyTable = ConsistencyTable()


class RewardSection(Section):
    """Weights of the reward components, how answers are verified, and the pool of grader processes.

    `weights` names built-in components (accuracy, format, accuracy_and_format, judge, caption_check,
    option_consistency) or your functions as `module:function`. `rules` chooses a rule by answer type, such as
    {string: anls}. `relative_tolerance` is the largest relative error at which numbers in math answers are equal.
    `deadline_seconds` is processor time for one answer (five times that by the clock), `memory_mb` what a grader
    process may take above its libraries.
    """

    weights: dict[str, float] = Field(default_factory=lambda: {"accuracy": 0.9, "format": 0.1})
    rules: dict[str, str] = Field(default_factory=dict)
    relative_tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.0
    judge: JudgeSection | None = None
    second_pass: SecondPassSection = SecondPassSection()
    workers: PositiveInt = 1
    deadline_seconds: Annotated[float, Field(gt=0)] = 4.0
    memory_mb: PositiveInt = 1024

    @model_validator(mode="after")
    def _known(self) -> RewardSection:
        if not self.rules and set(self.weights) <= {"accuracy", "format"}:
            return self
        # Imported here: the names live with the verifiers, which a plain configuration need not load.
        from infimmr_jax.rewards.components import NAMES
        from infimmr_jax.rewards.verifiers import RULES

        for name in self.weights:
            if name not in NAMES and not re.fullmatch(r"[\w.]+:\w+", name):
                near = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.4)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(NAMES)}, or module:function"
                raise ValueError(f"weights: {name!r} is no reward component; {hint}")
        if "judge" in self.weights and self.judge is None:
            raise ValueError("weights names 'judge', so `judge` must be set (function or endpoint)")
        for answer_type, rule in self.rules.items():
            if answer_type not in RULES:
                raise ValueError(f"rules: {answer_type!r} is no answer type; known: {', '.join(RULES)}")
            if rule not in RULES[answer_type]:
                raise ValueError(f"rules: {answer_type} has no rule {rule!r}; it has {', '.join(RULES[answer_type])}")
        return self


class RolloutSection(Section):
    """How responses are sampled."""

    temperature: Annotated[float, Field(ge=0.0)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0


class CoefficientSection(Section):
    """A loss coefficient and how it moves with the optimiser step.

    It holds `coefficient` until `start_step`, moves to `final_share * coefficient` at `end_step` (null: the last step
    of the curriculum) and stays there. `linear_then_flat` is `linear` that must name the `end_step` it is flat from.
    """

    coefficient: Annotated[float, Field(ge=0)] = 0.0
    schedule: Literal["constant", "linear", "cosine", "linear_then_flat"] = "constant"
    start_step: Annotated[int, Field(ge=0)] = 0
    end_step: PositiveInt | None = None
    final_share: Annotated[float, Field(ge=0)] = 0.0

    @model_validator(mode="after")
    def _moves(self) -> CoefficientSection:
        if self.schedule == "constant" and (self.end_step is not None or self.start_step or self.final_share):
            raise ValueError(
                "schedule 'constant' does not move, so start_step, end_step and final_share have no meaning; "
                "drop them or choose 'linear', 'cosine' or 'linear_then_flat'"
            )
        if self.schedule == "linear_then_flat" and self.end_step is None:
            raise ValueError("schedule 'linear_then_flat' needs `end_step`, the step from which it stays flat")
        if self.end_step is not None and self.end_step <= self.start_step:
            raise ValueError(f"end_step {self.end_step} must come after start_step {self.start_step}")
        return self


class KlSection(CoefficientSection):
    """Penalty on the divergence from the reference policy; `sample_weight: apo` eases it on hard questions (APO)."""

    estimator: Literal["k1", "k2", "k3"] = "k3"
    place: Literal["loss", "reward"] = "loss"
    sample_weight: Literal["none", "apo"] = "none"

    @model_validator(mode="after")
    def _weights_need_loss(self) -> KlSection:
        if self.sample_weight != "none" and (self.place == "reward" or not self.coefficient):
            raise ValueError(
                "sample_weight weighs the KL term of the loss; it needs place 'loss' and a coefficient > 0"
            )
        return self


class EntropySection(CoefficientSection):
    """Entropy bonus: the coefficient times the mean entropy is taken from the loss."""


class PerceptionSection(CoefficientSection):
    """PAPO: reward a policy whose token probabilities change when image patches are blacked out.

    `masked_share` of the patches is blacked out; the two entropy coefficients weigh the mean negative log-prob with the
    whole and with the masked image; `differentiate_masked` lets the gradient flow through the masked forward too.
    """

    masked_share: Annotated[float, Field(gt=0, le=1)] = 0.6
    entropy_coefficient: Annotated[float, Field(ge=0)] = 0.0
    masked_entropy_coefficient: Annotated[float, Field(ge=0)] = 0.0
    differentiate_masked: bool = False

    @model_validator(mode="after")
    def _has_gradient(self) -> PerceptionSection:
        if not self.coefficient and (self.entropy_coefficient or self.masked_entropy_coefficient):
            raise ValueError(
                "perception's entropy coefficients need perception.coefficient > 0, they are part of its term"
            )
        if self.masked_entropy_coefficient and not self.differentiate_masked:
            raise ValueError(
                "masked_entropy_coefficient has no gradient while the masked forward is not differentiated; "
                "set differentiate_masked: true or masked_entropy_coefficient: 0"
            )
        return self


class ImportanceSection(Section):
    """Correction for the sampler's log-probs differing from the trainer's: weights exp(trainer - behaviour).

    Weights are taken per token or per sequence (product over its tokens), and clipped to [low, high] (`truncate`) or
    set to 0 outside of it (`mask`).
    """

    level: Literal["none", "token", "sequence"] = "none"
    mode: Literal["truncate", "mask"] = "truncate"
    low: Annotated[float, Field(ge=0, le=1)] = 0.0
    high: Annotated[float, Field(ge=1)] = 2.0


class OverlongSection(Section):
    """Responses cut at the length limit: kept, taken out of the loss (`mask`), or penalised as they near it (`soft`).

    `soft` takes up to `penalty` from the reward over the last `buffer` tokens before the limit (DAPO).
    """

    mode: Literal["none", "mask", "soft"] = "none"
    buffer: PositiveInt | None = None
    penalty: Annotated[float, Field(gt=0)] = 1.0

    @model_validator(mode="after")
    def _soft_has_buffer(self) -> OverlongSection:
        if self.mode == "soft" and self.buffer is None:
            raise ValueError("overlong mode 'soft' needs `buffer`, the number of tokens over which the penalty grows")
        if self.mode != "soft" and self.buffer is not None:
            raise ValueError(f"`buffer` belongs to overlong mode 'soft', the mode is {self.mode!r}")
        return self


class GroupWeightSection(Section):
    """A factor on the advantages of a group, from its accuracy, lengths or overlap.

    `component` is the reward component read as accuracy (univg: as overlap); a response counts as right from
    `correct_from` on. `tasks` limits the weight to problems of these tasks (null: all). `sigma` belongs to observe_r1,
    `difficulty` and `unsolved` to vl_cogito, `base` to apo.
    """

    kind: Literal["none", "observe_r1", "vl_cogito", "univg", "apo"] = "none"
    component: str = "accuracy"
    correct_from: Annotated[float, Field(gt=0)] = 0.5
    sigma: Annotated[float, Field(gt=0)] = 1.8
    difficulty: Literal["easy", "medium", "hard"] = "easy"
    unsolved: Annotated[float, Field(ge=0)] = 0.25
    base: Annotated[float, Field(gt=1)] = 1.00001
    tasks: tuple[str, ...] | None = None


# Published (clip_low, clip_high) of each objective; cispo's paper has no lower bound, and sapo has no bounds at all.
_CLIP_DEFAULTS = {
    "ppo_clip": (0.2, 0.28),
    "gspo": (3e-4, 4e-4),
    "gspo_token": (3e-4, 4e-4),
    "cispo": (1.0, 4.0),
    "sapo": (None, None),
}


class GrpoSection(Section):
    """The policy update: advantage estimator, group weight, objective, aggregation, KL; formulas in docs/methods.md.

    `clip_low` and `clip_high` bound the ratio to [1 - clip_low, 1 + clip_high]; left out, they take the objective's
    published values. `micro_batches` splits one update without changing its gradient.
    """

    estimator: Literal[
        "grpo", "no_std", "batch_std", "rloo", "reinforce_baseline", "gdpo", "component_mean", "ema_std"
    ] = "grpo"
    std_epsilon: Annotated[float, Field(gt=0)] = 1e-6
    advantage_clip: Annotated[float, Field(gt=0)] | None = None
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    ema_fallback: Annotated[float, Field(gt=0)] = 5.0
    group_weight: GroupWeightSection = GroupWeightSection()
    objective: Literal["ppo_clip", "gspo", "gspo_token", "cispo", "sapo"] = "ppo_clip"
    clip_low: float | None = _CLIP_DEFAULTS["ppo_clip"][0]
    clip_high: float | None = _CLIP_DEFAULTS["ppo_clip"][1]
    dual_clip: float | None = None
    tau_positive: Annotated[float, Field(gt=0)] = 1.0
    tau_negative: Annotated[float, Field(gt=0)] = 1.05
    aggregation: Literal["token_mean", "sequence_mean", "constant"] = "token_mean"
    kl: KlSection = KlSection()
    entropy: EntropySection = EntropySection()
    perception: PerceptionSection = PerceptionSection()
    importance: ImportanceSection = ImportanceSection()
    overlong: OverlongSection = OverlongSection()
    updates_per_batch: PositiveInt = 1
    micro_batches: PositiveInt = 1
    logprob_chunk: PositiveInt = 1024

    @model_validator(mode="before")
    @classmethod
    def _published_clip(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        low, high = _CLIP_DEFAULTS.get(values.get("objective", "ppo_clip"), (None, None))
        return {"clip_low": low, "clip_high": high} | values

    @model_validator(mode="after")
    def _fits_together(self) -> GrpoSection:
        if self.objective == "sapo":
            if self.clip_low is not None or self.clip_high is not None:
                raise ValueError(
                    "objective 'sapo' does not clip; drop clip_low and clip_high, its keys are tau_positive/negative"
                )
        elif self.clip_low is None or self.clip_high is None:
            raise ValueError(f"objective {self.objective!r} needs numbers for clip_low and clip_high, or neither key")
        else:
            if not 0 < self.clip_low <= 1:
                raise ValueError(
                    f"clip_low {self.clip_low} must lie in (0, 1]: the ratio is kept above 1 - clip_low; with 0 every "
                    "down-weighted token would be raised to 1, with 1 there is no lower bound"
                )
            if self.clip_high <= 0:
                raise ValueError(
                    f"clip_high {self.clip_high} must be above 0: the ratio is kept below 1 + clip_high, and a cap of "
                    "1 or less shrinks every token's gradient (another trainer's cispo cap c is clip_high = c - 1 here)"
                )
        if self.dual_clip is not None and (
            self.objective in ("cispo", "sapo") or self.dual_clip <= 1 + (self.clip_high or 0)
        ):
            raise ValueError(
                f"dual_clip {self.dual_clip} must be above 1 + clip_high and belongs to ppo_clip, gspo and gspo_token; "
                f"the objective is {self.objective!r}"
            )
        if self.estimator in ("gdpo", "component_mean"):
            kept_out = f"estimator {self.estimator!r} normalises the reward components, not their sum, so"
            if self.kl.coefficient and self.kl.place == "reward":
                raise ValueError(f"{kept_out} a KL penalty in the reward would be lost; set kl.place: loss")
            if self.overlong.mode == "soft":
                raise ValueError(f"{kept_out} the soft over-long penalty would be lost; set overlong.mode: mask")
        return self


class OptimizerSection(Section):
    """AdamW with global-norm clipping; the schedule spans the whole curriculum.

    The learning rate rises linearly over `warmup_steps` (the first step already has 1 / warmup_steps of it), then
    follows `schedule` down to `final_share` of itself at the last step.
    """

    learning_rate: Annotated[float, Field(gt=0)] = 1e-6
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    final_share: Share = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    beta1: Share = 0.9
    beta2: Share = 0.99
    epsilon: Annotated[float, Field(gt=0)] = 1e-8
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0

    @model_validator(mode="after")
    def _moves(self) -> OptimizerSection:
        if self.schedule == "constant" and self.final_share:
            raise ValueError("schedule 'constant' does not fall, so final_share has no meaning; drop it")
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
    tree = copy.deepcopy(tree)
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
