"""Sampling and the policy update."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from infimmr_jax.config.base import Because, PositiveInt, Section
from infimmr_jax.config.schema import Kinds
from infimmr_jax.names import JsonValue


class DrawsSection(Section):
    """How many batches of prompts a step draws, and which groups it keeps of them; what is kept fills one batch.

    A step draws `at_least` batches, and more until it is full or `at_most` are drawn. `drop` leaves out groups whose
    rewards are all equal (`equal`) or whose mean accuracy is not between `low` and `high` (`accuracy`; 0 and 1); after
    the last draw what is still missing is filled with them. Of more groups than fit, `keep` takes the first ones or
    those with the largest standard deviation of the reward (`spread`).
    """

    at_least: PositiveInt = 1
    at_most: PositiveInt = 1
    drop: Literal["none", "equal", "accuracy"] = "none"
    low: Annotated[float, Field(ge=0, lt=1)] | None = None
    high: Annotated[float, Field(gt=0, le=1)] | None = None
    keep: Literal["first", "spread"] = "first"

    @model_validator(mode="after")
    def _draws(self) -> DrawsSection:
        if self.at_most < self.at_least:
            raise ValueError(f"draws: at_most {self.at_most} is less than at_least {self.at_least}")
        if self.at_most > self.at_least and self.drop == "none":
            raise ValueError("draws: without `drop` a step is full after its first draws; set drop, or at_most lower")
        if self.keep == "spread" and self.at_most == 1:
            raise ValueError("draws: keep 'spread' has no choice with one draw a step; raise at_least or at_most")
        if self.at_least > 1 and self.drop == "none" and self.keep == "first":
            raise ValueError("draws: later draws would never be kept; set drop, or keep: spread")
        if self.at_most == 1 and self.drop != "none":
            raise ValueError("draws: what is dropped is replaced by later draws; set at_most above 1, or drop: none")
        if self.drop != "accuracy" and (self.low is not None or self.high is not None):
            raise ValueError(f"draws: low and high belong to drop 'accuracy', drop is {self.drop!r}")
        if (0.0 if self.low is None else self.low) >= (1.0 if self.high is None else self.high):
            raise ValueError("draws: low must be below high")
        return self


class RolloutSection(Section):
    """How responses are sampled, and how many prompts a step draws.

    `stop` are texts that end a response when it has written them. `compactions` is how many smaller shapes unfinished
    responses are gathered into while others finish, each a program more; null: none for answers of up to 64 tokens,
    which are sampled sooner than the programs are compiled, 2 up to 256 tokens, else 6. `cache_sizes` is how many sizes
    the cache of a batch's answers grows through, of which every token reads the whole; each is a loop more to compile.
    """

    temperature: Annotated[
        float, Field(gt=0.0), Because("at 0 all answers of a group are the same, and nothing is learned from them")
    ] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    min_p: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    repetition_penalty: Annotated[float, Field(gt=0.0)] = 1.0
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    compactions: Annotated[int, Field(ge=0, le=16)] | None = None
    cache_sizes: Annotated[int, Field(ge=1, le=16)] = 1
    draws: DrawsSection = DrawsSection()

    def compactions_for(self, max_response: int) -> int:
        """The number of smaller shapes for answers of at most `max_response` tokens."""
        if self.compactions is not None:
            return self.compactions
        # docs/benchmarks.md: 2 keep half of the executed steps useful where lengths have a long tail, 6 three quarters.
        return 0 if max_response <= 64 else 2 if max_response <= 256 else 6


class CoefficientSection(Section):
    """A loss coefficient and how it moves with the optimiser step.

    It holds `coefficient` until `start_step`, moves to `final_share * coefficient` at `end_step` (null: the last step)
    and stays there. `linear_then_flat` is `linear` that must name the `end_step` it is flat from. `span` says what the
    steps are counted over: the whole curriculum, or each phase anew.
    """

    coefficient: Annotated[float, Field(ge=0)] = 0.0
    schedule: Literal["constant", "linear", "cosine", "linear_then_flat"] = "constant"
    span: Literal["run", "phase"] = "run"
    start_step: Annotated[int, Field(ge=0)] = 0
    end_step: PositiveInt | None = None
    final_share: Annotated[float, Field(ge=0)] = 0.0

    @model_validator(mode="after")
    def _moves(self) -> CoefficientSection:
        if self.schedule == "constant" and (
            self.end_step is not None or self.start_step or self.final_share or self.span == "phase"
        ):
            raise ValueError(
                "schedule 'constant' does not move, so span, start_step, end_step and final_share have no meaning; "
                "drop them or choose 'linear', 'cosine' or 'linear_then_flat'"
            )
        if self.schedule == "linear_then_flat" and self.end_step is None:
            raise ValueError("schedule 'linear_then_flat' needs `end_step`, the step from which it stays flat")
        if self.end_step is not None and self.end_step <= self.start_step:
            raise ValueError(f"end_step {self.end_step} must come after start_step {self.start_step}")
        return self

    @property
    def used(self) -> bool:
        """Whether the term is computed at all; its coefficient is given with every step."""
        return self.coefficient > 0


class KlSection(CoefficientSection):
    """Penalty on the divergence from the reference policy; `sample_weight: apo` eases it on hard questions (APO).

    In the loss, or with `place: reward` in the advantage of every token (docs/methods.md, "KL").

    `reference` is the policy before the first phase, the one at the start of the phase, or a moving average of the
    policy with `ema_decay` a step (0.99), which starts as the policy of the first phase that asks for it.
    """

    estimator: Literal["k1", "k2", "k3"] = "k3"
    place: Literal["loss", "reward"] = "loss"
    sample_weight: Literal["none", "apo"] = "none"
    reference: Literal["initial", "phase_start", "ema"] = "initial"
    ema_decay: Annotated[float, Field(ge=0, lt=1)] | None = None

    @model_validator(mode="after")
    def _reference_is_used(self) -> KlSection:
        if self.reference != "initial" and not self.coefficient:
            raise ValueError(f"reference {self.reference!r} has no meaning without a KL term: set coefficient > 0")
        if self.ema_decay is not None and self.reference != "ema":
            raise ValueError(f"`ema_decay` belongs to reference 'ema', the reference is {self.reference!r}")
        return self

    @model_validator(mode="after")
    def _weights_need_loss(self) -> KlSection:
        if self.sample_weight != "none" and (self.place == "reward" or not self.coefficient):
            raise ValueError(
                "sample_weight weighs the KL term of the loss; it needs place 'loss' and a coefficient > 0"
            )
        return self

    @property
    def in_loss(self) -> bool:
        """Whether the loss has a KL term."""
        return self.used and self.place == "loss"

    @property
    def in_reward(self) -> bool:
        """Whether advantages are lowered by the KL to come."""
        return self.used and self.place == "reward"


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

    @model_validator(mode="after")
    def _has_a_level(self) -> ImportanceSection:
        if self.level == "none" and (self.mode, self.low, self.high) != ("truncate", 0.0, 2.0):
            raise ValueError(
                "importance: mode, low and high change nothing at level 'none'; set level: token or sequence, or drop "
                "them"
            )
        return self


class OverlongKept(Section):
    """Responses cut at the length limit train as all others do."""

    mode: Literal["none"]


class OverlongMasked(Section):
    """Responses cut at the length limit are taken out of the loss."""

    mode: Literal["mask"]


class OverlongSoft(Section):
    """Up to `penalty` is taken from the reward over the last `buffer` tokens before the limit (DAPO)."""

    mode: Literal["soft"]
    buffer: PositiveInt
    penalty: Annotated[float, Field(gt=0)] = 1.0


# Responses cut at the length limit: kept, taken out of the loss, or penalised as they near it.
OverlongSection = Annotated[OverlongKept | OverlongMasked | OverlongSoft, Kinds("mode", default="none")]


class _GroupWeight(Section):
    """What every group weight has.

    `component` is the reward component read as accuracy (univg: as overlap); a response counts as right from
    `correct_from` on; `grpo.kl.sample_weight` reads both as well. `tasks` limits the weight to problems of these tasks
    (null: all).
    """

    component: str = "accuracy"
    correct_from: Annotated[float, Field(gt=0)] = 0.5
    tasks: tuple[str, ...] | None = None


class NoGroupWeight(_GroupWeight):
    """All groups weigh the same."""

    kind: Literal["none"]


class ObserveWeight(_GroupWeight):
    """Observe-R1: `sigma` times four times the variance of the group's accuracy."""

    kind: Literal["observe_r1"]
    sigma: Annotated[float, Field(gt=0)] = 1.8


class CogitoWeight(_GroupWeight):
    """VL-Cogito: by the group's accuracy and the phase's `difficulty`; `unsolved` weighs groups without a right one."""

    kind: Literal["vl_cogito"]
    difficulty: Literal["easy", "medium", "hard"] = "easy"
    unsolved: Annotated[float, Field(ge=0)] = 0.25


class OverlapWeight(_GroupWeight):
    """UniVG-R1: the more, the smaller the group's mean overlap is."""

    kind: Literal["univg"]


class ApoWeight(_GroupWeight):
    """APO: wrong responses that are longer than the right ones weigh more, by `base` to the power of the excess."""

    kind: Literal["apo"]
    base: Annotated[float, Field(gt=1)] = 1.00001


# A factor on the advantages of a group, from its accuracy, lengths or overlap.
GroupWeightSection = Annotated[
    NoGroupWeight | ObserveWeight | CogitoWeight | OverlapWeight | ApoWeight, Kinds(default="none")
]


# Published (clip_low, clip_high) of each objective; cispo's paper has no lower bound, and sapo has no bounds at all.
PUBLISHED_CLIP = {
    "ppo_clip": (0.2, 0.28),
    "gspo": (3e-4, 4e-4),
    "gspo_token": (3e-4, 4e-4),
    "cispo": (1.0, 4.0),
    "sapo": (None, None),
}


class GrpoSection(Section):
    """The policy update: advantage estimator, group weight, objective, aggregation, KL; formulas in docs/methods.md.

    `clip_low` and `clip_high` bound the ratio to [1 - clip_low, 1 + clip_high]; left out, they take the objective's
    published values. A batch is split into `minibatches`, one optimiser step each, and passed over
    `updates_per_batch` times. `micro_batches` splits one optimiser step without changing its gradient.
    `micro_batch_tokens` chooses their number for each shape instead: at most that many tokens on a device.
    """

    estimator: Literal[
        "grpo", "no_std", "batch_std", "rloo", "reinforce_baseline", "gdpo", "component_mean", "ema_std"
    ] = "grpo"
    std_epsilon: Annotated[float, Field(gt=0)] = 1e-6
    advantage_clip: Annotated[float, Field(gt=0)] | None = None
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    ema_fallback: Annotated[float, Field(gt=0)] = 5.0
    group_weight: GroupWeightSection = NoGroupWeight(kind="none")
    objective: Literal["ppo_clip", "gspo", "gspo_token", "cispo", "sapo"] = "ppo_clip"
    clip_low: float | None = PUBLISHED_CLIP["ppo_clip"][0]
    clip_high: float | None = PUBLISHED_CLIP["ppo_clip"][1]
    dual_clip: float | None = None
    tau_positive: Annotated[float, Field(gt=0)] = 1.0
    tau_negative: Annotated[float, Field(gt=0)] = 1.05
    aggregation: Literal["token_mean", "sequence_mean", "constant"] = "token_mean"
    kl: KlSection = KlSection()
    entropy: EntropySection = EntropySection()
    perception: PerceptionSection = PerceptionSection()
    importance: ImportanceSection = ImportanceSection()
    overlong: OverlongSection = OverlongKept(mode="none")
    updates_per_batch: PositiveInt = 1
    minibatches: PositiveInt = 1
    micro_batches: PositiveInt = 1
    micro_batch_tokens: PositiveInt | None = None
    logprob_chunk: PositiveInt | None = None

    def chunk_for(self, vocab_size: int) -> int:
        """Tokens whose logits exist at a time: 1,024, fewer where that makes more than 40 million (160 MB)."""
        if self.logprob_chunk is not None:
            return self.logprob_chunk
        return min(1024, max(64, 40_000_000 // vocab_size // 64 * 64))

    @model_validator(mode="before")
    @classmethod
    def _published_clip(cls, values: object) -> JsonValue:
        if not isinstance(values, dict):
            return values
        low, high = PUBLISHED_CLIP.get(values.get("objective", "ppo_clip"), (None, None))
        return {"clip_low": low, "clip_high": high} | values

    @model_validator(mode="after")
    def _fits_together(self) -> GrpoSection:
        if self.micro_batch_tokens is not None and self.micro_batches != 1:
            raise ValueError("give micro_batches or micro_batch_tokens, not both: the second chooses the first")
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
        if self.estimator in ("gdpo", "component_mean") and self.overlong.mode == "soft":
            raise ValueError(
                f"estimator {self.estimator!r} normalises the reward components, not their sum, so the soft over-long "
                "penalty would be lost; set overlong.mode: mask"
            )
        return self
