"""The supervised cold start: demonstrations as a Grain pipeline, and one jit-compiled step on response tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jaxtyping import Array, Bool, Float

from infimmr_jax.config import SftSection, TrainableSection
from infimmr_jax.data.conversations import Conversation
from infimmr_jax.data.records import DataError, Problem
from infimmr_jax.model.config import ModelConfig
from infimmr_jax.model.decoder import head_kernel
from infimmr_jax.model.logprobs import token_logprobs
from infimmr_jax.model.options import ModelOptions
from infimmr_jax.model.qwen2_5_vl import branch_forward, trunk_forward
from infimmr_jax.names import Modality
from infimmr_jax.objectives.packed import packed_loss
from infimmr_jax.objectives.train_state import TrainState, apply_gradient
from infimmr_jax.objectives.trainable import EVERYTHING, frozen_stopped, learning_factors
from infimmr_jax.parallel.hosts import RowShare
from infimmr_jax.preprocess.batching import PromptBatch
from infimmr_jax.preprocess.demonstrations import DemonstrationPlan, split_plan
from infimmr_jax.preprocess.packing import PackedBatch, PackedShape, collate_packed, needed_shape, pack
from infimmr_jax.preprocess.prompts import IMAGE_MARK, EncodedPrompt, PromptPlan


@struct.dataclass
class SftBatch:
    """Prompts with one demonstrated response each, int32 [P, 1, R]; `mask` is True on its tokens and end token."""

    prompts: PromptBatch
    responses: Any
    mask: Any


def demonstration(problem: Problem, worked: bool, response_format: str) -> str:
    """The text of a demonstrated response: worked (chain of thought, then the answer) or the answer alone.

    A problem observed is its caption; without one, its question.
    """
    boxed = f"\\boxed{{{problem.answer}}}"
    answer = {
        "think_answer": f"<answer>{problem.answer}</answer>",
        "think_answer_boxed": f"<answer>{boxed}</answer>",
        "observe_think_answer": f"<answer>{problem.answer}</answer>",
    }.get(response_format, boxed)
    if not worked or not problem.solution:
        return answer
    if response_format == "boxed":
        return f"{problem.solution} {answer}"
    seen = problem.caption or problem.question.replace(IMAGE_MARK, "").strip()
    observed = f"<observe> {seen}</observe>" if response_format == "observe_think_answer" else ""
    return f"{observed}<think> {problem.solution}</think>{answer}"


def encode_response(text: str, tokenizer: Any, eos: int, limit: int, problem_id: str) -> np.ndarray:
    """Token ids of a demonstration with its end token; one that is too long is an error, never cut."""
    ids = [*tokenizer.encode(text, add_special_tokens=False), eos]
    if len(ids) > limit:
        raise DataError(
            f"the demonstration of problem {problem_id} has {len(ids)} tokens, over sft.max_response = {limit}; "
            "raise the limit or leave the source out"
        )
    return np.asarray(ids, np.int32)


def stage_of(step: int, sft: SftSection) -> int:
    """Index of the stage that step belongs to."""
    ends = np.cumsum([stage.steps for stage in sft.stages])
    return int(np.searchsorted(ends, step, side="right"))


def learning_rate_at(step: int, sft: SftSection) -> float:
    """The learning rate of a step: a linear warm-up at the very start, and a linear fall inside each stage."""
    index = stage_of(step, sft)
    stage = sft.stages[index]
    inside = step - sum(earlier.steps for earlier in sft.stages[:index])
    peak = stage.learning_rate or sft.learning_rate
    rise = min(1.0, (step + 1) / max(1, sft.warmup_steps))
    return peak * rise * (1.0 - (1.0 - stage.final_share) * inside / stage.steps)


def total_steps(sft: SftSection) -> int:
    """Steps of all stages."""
    return sum(stage.steps for stage in sft.stages)


@dataclasses.dataclass(frozen=True)
class DemonstrationPool:
    """Problems of one source, shown in one modality, or conversations (no modality); and how often they are drawn."""

    modality: Modality | None
    weight: float
    problems: Sequence[Problem] | Sequence[Conversation]


@dataclasses.dataclass(frozen=True)
class Drawn:
    """One demonstration of a step: a problem shown in a modality, worked or not, or a whole conversation."""

    item: Problem | Conversation
    modality: Modality | None
    worked: bool


@dataclasses.dataclass(frozen=True)
class DemonstrationBatcher:
    """Makes the batch of one optimiser step from the step's number alone: that number is the whole data state.

    `plan` lays a demonstration out as one text, `pixels` decodes a plan's images. With `shape` the demonstrations of a
    step are packed, in rows of that shape or, when a step needs more of something, of more.
    """

    sft: SftSection
    pools: tuple[DemonstrationPool, ...]
    plan: Callable[[Drawn], DemonstrationPlan]
    pixels: Callable[[PromptPlan], EncodedPrompt]
    collate: Callable[..., PromptBatch]
    pad: int
    seed: int
    share: RowShare
    measure: Callable[[Problem, Modality], PromptPlan | None] | None = None
    shape: PackedShape | None = None

    def draw(self, step: int) -> list[Drawn]:
        """The demonstrations of a step, on every process the same."""
        rng = np.random.default_rng((self.seed, 7, step))
        sft = self.sft
        share = np.asarray([pool.weight for pool in self.pools])
        worked_share = sft.stages[stage_of(step, sft)].worked_share
        chosen = rng.choice(len(self.pools), sft.batch_size, p=share / share.sum())
        places = rng.random(sft.batch_size)
        worked = rng.random(sft.batch_size) < worked_share
        drawn = []
        for number, place, shows in zip(chosen, places, worked, strict=True):
            pool = self.pools[number]
            drawn.append(Drawn(pool.problems[int(place * len(pool.problems))], pool.modality, bool(shows)))
        return drawn

    def __call__(self, step: int) -> SftBatch | PackedBatch:
        drawn = self.draw(step)
        return self._rows(drawn) if self.shape is None else self._packed(drawn, self.shape)

    def _rows(self, drawn: Sequence[Drawn]) -> SftBatch:
        """One demonstration a row: its prompt as a trunk, its response as the one branch."""
        prompts, others = [], []
        responses = np.full((len(drawn), 1, self.sft.max_response), self.pad, np.int32)
        mask = np.zeros(responses.shape, bool)
        mine = self.share.rows(len(drawn))
        for row, one in enumerate(drawn):
            if row not in mine:
                if self.measure is not None:
                    others.append(self._elsewhere(one))
                continue
            prompt, ids = split_plan(self.plan(one))
            prompts.append(self.pixels(prompt))
            responses[row, 0, : len(ids)] = ids
            mask[row, 0, : len(ids)] = True
        rows = slice(mine.start, mine.stop)
        return SftBatch(self.collate(prompts, others), responses[rows], mask[rows])

    def _elsewhere(self, one: Drawn) -> PromptPlan | None:
        assert self.measure is not None
        if isinstance(one.item, Conversation) or one.modality is None:
            return split_plan(self.plan(one))[0]
        return self.measure(one.item, one.modality)

    def _packed(self, drawn: Sequence[Drawn], shape: PackedShape) -> PackedBatch:
        """Several demonstrations a row. Every process packs them all and decodes its share of the images."""
        rows = self.packed_rows(drawn, shape.tokens)
        return collate_packed(rows, self.pixels, shape.grown(needed_shape(rows, shape.tokens)), self.share)

    def packed_rows(self, drawn: Sequence[Drawn], tokens: int) -> list[list[DemonstrationPlan]]:
        """The demonstrations of a step, planned and put into rows of `tokens`."""
        plans = [self.plan(one) for one in drawn]
        return [[plans[i] for i in row] for row in pack([plan.length for plan in plans], tokens)]


def demonstrations(batcher: DemonstrationBatcher) -> grain.MapDataset:
    """A dataset whose element i is the batch of cold-start step i."""
    return grain.MapDataset.range(total_steps(batcher.sft)).map(batcher)


def sft_step(
    state: TrainState,
    batch: SftBatch | PackedBatch,
    allowed: Bool[Array, "V"],
    learning_rate: Float[Array, ""],
    config: ModelConfig,
    options: ModelOptions,
    optimizer: optax.GradientTransformation,
    chunk: int,
    trainable: TrainableSection = EVERYTHING,
) -> tuple[TrainState, dict[str, Array]]:
    """One step on the mean negative log-probability of the response tokens, for what `trainable` lets move."""
    factors = learning_factors(state.params, trainable)

    def loss_of(params: dict) -> Array:
        params = frozen_stopped(params, factors)
        if isinstance(batch, PackedBatch):
            return packed_loss(params, batch, allowed, config, options, chunk)
        trunk = trunk_forward(params, config, options, batch.prompts)
        hidden = branch_forward(params, config, options, trunk, batch.responses)
        kernel = head_kernel(params["decoder"], config.text)
        log_probs, _ = token_logprobs(hidden, kernel, batch.responses, allowed, 1.0, chunk)
        return -jnp.sum(jnp.where(batch.mask, log_probs, 0.0)) / jnp.sum(batch.mask)

    loss, gradient = jax.value_and_grad(loss_of)(state.params)
    state, metrics = apply_gradient(state, gradient, optimizer, learning_rate, factors, loss)
    return state, {"loss": loss, **metrics}
