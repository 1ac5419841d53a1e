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

from infimmr_jax.config import Modality, SftSection, TrainableSection
from infimmr_jax.data.records import DataError, Problem
from infimmr_jax.grpo.state import TrainState, apply_gradient
from infimmr_jax.grpo.trainable import EVERYTHING, frozen_stopped, learning_factors
from infimmr_jax.model.config import ModelConfig
from infimmr_jax.model.decoder import head_kernel
from infimmr_jax.model.logprobs import token_logprobs
from infimmr_jax.model.options import ModelOptions
from infimmr_jax.model.qwen2_5_vl import branch_forward, trunk_forward
from infimmr_jax.parallel.hosts import RowShare
from infimmr_jax.preprocess.batching import PromptBatch


@struct.dataclass
class SftBatch:
    """Prompts with one demonstrated response each, int32 [P, 1, R]; `mask` is True on its tokens and end token."""

    prompts: PromptBatch
    responses: Any
    mask: Any


def demonstration(problem: Problem, worked: bool, response_format: str) -> str:
    """The text of a demonstrated response: worked (chain of thought, then the answer) or the answer alone."""
    answer = f"\\boxed{{{problem.answer}}}"
    if not worked or not problem.solution:
        return answer
    return (
        f"<think> {problem.solution}</think>{answer}"
        if response_format == "think_boxed"
        else f"{problem.solution} {answer}"
    )


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
    """Problems of one source, shown in one modality, and how often they are drawn."""

    modality: Modality
    weight: float
    problems: Sequence[Problem]


@dataclasses.dataclass(frozen=True)
class DemonstrationBatcher:
    """Makes the batch of one optimiser step from the step's number alone: that number is the whole data state."""

    sft: SftSection
    pools: tuple[DemonstrationPool, ...]
    encode: Callable[[Problem, Modality], Any]
    collate: Callable[..., PromptBatch]
    tokenizer: Any
    eos: int
    pad: int
    response_format: str
    seed: int
    share: RowShare
    measure: Callable[[Problem, Modality], Any] | None

    def __call__(self, step: int) -> SftBatch:
        rng = np.random.default_rng((self.seed, 7, step))
        sft = self.sft
        share = np.asarray([pool.weight for pool in self.pools])
        worked_share = sft.stages[stage_of(step, sft)].worked_share
        chosen = rng.choice(len(self.pools), sft.batch_size, p=share / share.sum())
        places = rng.random(sft.batch_size)
        worked = rng.random(sft.batch_size) < worked_share
        prompts, responses = [], np.full((sft.batch_size, 1, sft.max_response), self.pad, np.int32)
        mask = np.zeros(responses.shape, bool)
        mine = self.share.rows(sft.batch_size)
        others = []
        for row in range(sft.batch_size):
            pool = self.pools[chosen[row]]
            problem = pool.problems[int(places[row] * len(pool.problems))]
            if row not in mine:
                if self.measure is not None:
                    others.append(self.measure(problem, pool.modality))
                continue
            prompts.append(self.encode(problem, pool.modality))
            text = demonstration(problem, bool(worked[row]), self.response_format)
            ids = encode_response(text, self.tokenizer, self.eos, sft.max_response, problem.id)
            responses[row, 0, : len(ids)] = ids
            mask[row, 0, : len(ids)] = True
        rows = slice(mine.start, mine.stop)
        return SftBatch(self.collate(prompts, others), responses[rows], mask[rows])


def demonstrations(batcher: DemonstrationBatcher) -> grain.MapDataset:
    """A dataset whose element i is the batch of cold-start step i."""
    return grain.MapDataset.range(total_steps(batcher.sft)).map(batcher)


def sft_step(
    state: TrainState,
    batch: SftBatch,
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
        trunk = trunk_forward(params, config, options, batch.prompts)
        hidden = branch_forward(params, config, options, trunk, batch.responses)
        kernel = head_kernel(params["decoder"], config.text)
        log_probs, _ = token_logprobs(hidden, kernel, batch.responses, allowed, 1.0, chunk)
        return -jnp.sum(jnp.where(batch.mask, log_probs, 0.0)) / jnp.sum(batch.mask)

    loss, gradient = jax.value_and_grad(loss_of)(state.params)
    state, metrics = apply_gradient(state, gradient, optimizer, learning_rate, factors, loss)
    return state, {"loss": loss, **metrics}
