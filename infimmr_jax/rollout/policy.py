"""A policy that answers batches of prompts on all devices of a mesh, outside of training."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Int

from infimmr_jax.config import ConfigError, PolicyConfig, RunConfig
from infimmr_jax.data.records import Problem
from infimmr_jax.model.family import Model
from infimmr_jax.model.hf import load_params
from infimmr_jax.model.hf_directory import read_directory
from infimmr_jax.model.options import model_options
from infimmr_jax.model.trunk import Params
from infimmr_jax.names import LOCATED, Modality
from infimmr_jax.parallel.hosts import row_share
from infimmr_jax.parallel.mesh import batch_divisor, make_mesh, replicated, shard_batch
from infimmr_jax.preprocess.batching import PromptBatch, collate
from infimmr_jax.preprocess.layout import VisionLayout
from infimmr_jax.preprocess.processor_config import directory_data
from infimmr_jax.preprocess.prompts import PromptPlan, as_seen, encode_plan, plan_picture, plan_prompt
from infimmr_jax.rollout.generate import SMALLEST_TRUNK, round_up
from infimmr_jax.rollout.sampler import sample
from infimmr_jax.rollout.state import Rollouts, SampleSettings
from infimmr_jax.rollout.vocabulary import allowed_tokens, response_texts


@dataclasses.dataclass(frozen=True)
class Policy:
    """A loaded model, spread over the mesh of its configuration."""

    name: str
    config: RunConfig | PolicyConfig
    params: Params
    model: Model
    tokenizer: Any
    mesh: Mesh

    @property
    def layout(self) -> VisionLayout:
        """What preprocessing must know of the model."""
        return self.model.layout

    def rows(self, wanted: int) -> int:
        """The smallest batch of at least `wanted` prompts that the devices divide."""
        divisor = batch_divisor(self.mesh)
        return -(-wanted // divisor) * divisor


@dataclasses.dataclass(frozen=True)
class Answers:
    """G answers to each of P prompts: texts, whether they ended by themselves, and their lengths in tokens."""

    texts: list[list[str]]
    finished: Bool[np.ndarray, "P G"]
    lengths: Int[np.ndarray, "P G"]


def with_directory_pixels(
    config: RunConfig, directory: Path | None, min_pixels: int | None = None, max_pixels: int | None = None
) -> RunConfig:
    """Give the configuration the pixel budget of a model directory (default: `model.path`), where it names none.

    `min_pixels` and `max_pixels` win over both.
    """
    directory = directory or config.model.path
    if directory is None:
        return config
    return config.model_copy(update={"data": directory_data(config.data, directory, min_pixels, max_pixels)})


def load_policy(config: RunConfig | PolicyConfig, directory: Path | None = None) -> Policy:
    """Load a Hugging Face directory (default: `model.path`) onto the mesh of the configuration.

    Raises ConfigError when there is none: a model made from scratch has nothing to say before it is trained.
    """
    directory = directory or config.model.path
    if directory is None:
        raise ConfigError("model.path is null: name a model directory with --model, such as RUN/model of a trained run")
    options = model_options(config.model.model_copy(update={"path": directory}))
    model, tokenizer = read_directory(directory, options)
    mesh = make_mesh(config.mesh)
    return Policy(str(directory), config, load_params(directory, model, mesh), model, tokenizer, mesh)


def plan(policy: Policy, modality: Modality, problem: Problem) -> PromptPlan:
    """The prompt of a problem as the policy's configuration words it; errors as `plan_prompt`."""
    config = policy.config
    return plan_prompt(problem, modality, policy.tokenizer, policy.layout, config.data, config.prompt)


def seen_by(policy: Policy, problem: Problem) -> Problem:
    """The problem as it is graded: with the size at which the policy is shown its picture, even where it is hidden."""
    if problem.answer_type not in LOCATED:
        return problem
    pictures = [plan_picture(image, policy.config.data.image, policy.layout) for image in problem.images]
    return as_seen(problem, pictures, policy.layout.patch_size)


def answer(policy: Policy, plans: Sequence[PromptPlan], settings: SampleSettings, rows: int, seed: int) -> Answers:
    """Sample answers to at most `rows` prompts; every process calls this with the same prompts and gets all answers.

    Each process decodes the pictures of its own rows alone. Prompts of similar size share their compiled programs.
    """
    batch = _batch(policy, plans, rows)
    key = jax.random.key(seed)
    with jax.set_mesh(policy.mesh):
        drawn = _sampler(policy.model, settings, policy.mesh)(
            policy.params, shard_batch(batch, policy.mesh), _allowed(policy), key
        )
    tokens, mask, finished = (np.asarray(x)[: len(plans)] for x in (drawn.tokens, drawn.mask, drawn.finished))
    return Answers(response_texts(policy.tokenizer, tokens, mask, policy.model.tokens.ends), finished, mask.sum(-1))


def _batch(policy: Policy, plans: Sequence[PromptPlan], rows: int) -> PromptBatch:
    """This process's rows, in a bucket that all processes choose alike: from the shapes of the whole batch."""
    layout = policy.layout
    window, slots = layout.window_patches, max(plan.image_shape[0] for plan in plans)
    windows = max(plan.image_shape[1] for plan in plans) // window
    bucket = (round_up(slots, 1), round_up(windows, 1) * window) if slots else (0, 0)
    length = round_up(max(plan.length for plan in plans), SMALLEST_TRUNK)
    share = row_share(policy.mesh)
    # Rows beyond the last prompt repeat it; collate marks them as fillers where a process has any of its own.
    mine = [plans[row] for row in share.rows(rows) if row < len(plans)] or [plans[-1]]
    encoded = [encode_plan(plan, layout, policy.config.data) for plan in mine]
    return collate(encoded, rows // share.count, length, bucket, layout)


def _allowed(policy: Policy) -> jax.Array:
    return jax.device_put(jnp.asarray(allowed_tokens(policy.tokenizer, policy.model)), replicated(policy.mesh))


@functools.lru_cache(maxsize=64)
def _sampler(model: Model, settings: SampleSettings, mesh: Mesh) -> Any:
    def run(params: Params, batch: PromptBatch, allowed: Any, key: jax.Array) -> Rollouts:
        return sample(params, model, settings, batch, allowed, key)[0]

    # Answers go to every device: any process may read all of them.
    return jax.jit(run, out_shardings=replicated(mesh))
