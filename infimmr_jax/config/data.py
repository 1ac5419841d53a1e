"""Sources of problems, phases of the curriculum, curation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from infimmr_jax.config.base import Because, PositiveInt, Section, Share, UserPath, UserPathText
from infimmr_jax.config.grpo import GrpoSection, RolloutSection
from infimmr_jax.config.model import ImageSection, PromptSection
from infimmr_jax.config.optimizer import OptimizerSection, TrainableSection
from infimmr_jax.config.reward import RewardSection
from infimmr_jax.config.schema import Kinds
from infimmr_jax.names import AnswerType, Modality


class SourceSection(Section):
    """One source of problems: a reader with its path below `data.root`, or procedural families; and its mixing weight.

    `reader` names the layout of the file or folder (`jsonl` is the common layout of the README, `fields` takes any
    records with customary names, `tfds` reads what `prepare` wrote). Image paths are relative to the file's folder, or
    to `images`. `captions` and `pass_rates` are JSON-lines files with an `id` and a `caption` or `pass_rate` a line; a
    problem with a pass rate gets the level 1 - pass rate. All paths lie below `data.root`.
    """

    reader: Literal[
        "jsonl",
        "synthetic",
        "tfds",
        "fields",
        "gsm8k",
        "math",
        "math_folder",
        "deepscaler",
        "virl39k",
        "geometry3k",
        "geometry3k_folder",
    ]
    path: UserPathText | None = None
    images: UserPathText | None = None
    captions: UserPathText | None = None
    pass_rates: UserPathText | None = None
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

    answer_types: tuple[AnswerType, ...] | None = None
    min_level: float | None = None
    max_level: float | None = None
    min_pass_rate: Share | None = None
    max_pass_rate: Share | None = None
    min_image_gap: Annotated[float, Field(ge=-1.0, le=1.0)] | None = None


class _Promotion(Section):
    """What every rule has that ends a phase before its `steps`: at the earliest it does after `min_steps`."""

    min_steps: Annotated[int, Field(ge=0)] = 0


class StepsPromotion(Section):
    """The phase ends with its `steps`."""

    kind: Literal["steps"]


class PlateauPromotion(_Promotion):
    """Ends where the training accuracy's mean over `window` steps is less than `least_gain` above that before them."""

    kind: Literal["plateau"]
    window: PositiveInt
    least_gain: float


class AccuracyPromotion(_Promotion):
    """Ends where at least `at_least` of the first `problems` held-out problems are right, asked every `every` steps.

    The problems are those of the phase's modality.
    """

    kind: Literal["accuracy"]
    at_least: Share
    every: PositiveInt
    problems: PositiveInt


class TokensPromotion(_Promotion):
    """Ends where the phase has sampled `tokens` response tokens."""

    kind: Literal["tokens"]
    tokens: PositiveInt


# When a phase ends before its `steps`.
PromotionSection = Annotated[
    StepsPromotion | PlateauPromotion | AccuracyPromotion | TokensPromotion, Kinds(default="steps")
]


class PhaseSection(Section):
    """One phase of the curriculum that learns by GRPO.

    `modality` says what the prompt shows: `text` no image, `caption` image and caption, `image` the image alone.
    `caption_dropout` is the share of a caption phase's problems that are shown without their caption, at its first and
    at its last step (linear in between). `prompt` (the template's instruction and system text), `reward`, `grpo`,
    `rollout`, `optimizer` and `trainable` hold what differs from the run's sections of these names; once read, they are
    the phase's whole sections.
    `promotion` can end the phase before its `steps`.
    """

    kind: Literal["grpo"] = "grpo"
    name: str
    modality: Modality
    steps: PositiveInt
    sources: tuple[SourceSection, ...] = Field(min_length=1)
    filters: FilterSection = FilterSection()
    caption_dropout: tuple[Share, Share] = (0.0, 0.0)
    order: Literal["shuffle", "file", "easy_to_hard"] = "shuffle"
    prompts_per_step: PositiveInt = 32
    group_size: Annotated[
        int, Field(ge=2), Because("an answer is judged by comparison with the others of its group")
    ] = 8
    max_response: PositiveInt = 48
    prompt: PromptSection = PromptSection()
    reward: RewardSection = RewardSection()
    grpo: GrpoSection = GrpoSection()
    rollout: RolloutSection = RolloutSection()
    optimizer: OptimizerSection = OptimizerSection()
    trainable: TrainableSection = TrainableSection()
    promotion: PromotionSection = StepsPromotion(kind="steps")

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
    """Where data lie, the static shapes that prompts and images are padded to, and how steps are prepared ahead.

    `prefetch` steps are made ahead by `threads` of this process, or, with `workers`, by so many processes of so many
    threads each: for hosts whose one interpreter can not keep up. The steps and their order are the same.
    """

    root: UserPath | None = None
    max_prompt: PositiveInt = 64
    prompt_buckets: tuple[PositiveInt, ...] = ()
    image_buckets: tuple[tuple[int, int], ...] = ()
    max_images: PositiveInt = 1
    image: ImageSection = ImageSection()
    curation: CurationSection = CurationSection()
    prefetch: PositiveInt = 4
    threads: PositiveInt = 1
    workers: Annotated[int, Field(ge=0)] = 0
