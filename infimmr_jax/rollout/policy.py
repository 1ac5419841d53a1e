"""Ask a policy about loose prompts, outside of the training step: on all devices of a mesh, resumable, repeatable."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jaxtyping import Bool, Int

from infimmr_jax.config import ConfigError, PolicyConfig, RolloutSection, RunConfig
from infimmr_jax.data.records import DataError, Problem
from infimmr_jax.model.family import Model
from infimmr_jax.model.hf import load_params
from infimmr_jax.model.hf_directory import read_directory
from infimmr_jax.model.options import model_options
from infimmr_jax.model.trunk import Params
from infimmr_jax.names import LOCATED, Modality, Tokenizer
from infimmr_jax.parallel.hosts import row_share
from infimmr_jax.parallel.mesh import batch_divisor, make_mesh, replicated, shard_batch
from infimmr_jax.preprocess.batching import PromptBatch, collate
from infimmr_jax.preprocess.layout import VisionLayout
from infimmr_jax.preprocess.processor_config import directory_data
from infimmr_jax.preprocess.prompts import PromptPlan, as_seen, encode_plan, plan_picture, plan_prompt
from infimmr_jax.rollout.sampler import sample
from infimmr_jax.rollout.state import Rollouts, SampleSettings
from infimmr_jax.rollout.vocabulary import allowed_tokens, response_texts, stop_tables

SMALLEST_TRUNK = 64
# Besides the weights, what a policy is loaded from; named one by one, for results may lie in the model's directory.
MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "chat_template.json",
    "chat_template.jinja",
)
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class Policy:
    """A loaded model, spread over the mesh of its configuration; `name` is its directory."""

    name: str
    config: RunConfig | PolicyConfig
    params: Params
    model: Model
    tokenizer: Tokenizer
    mesh: Mesh

    @property
    def layout(self) -> VisionLayout:
        """Give what preprocessing must know of the model."""
        return self.model.layout

    def rows(self, wanted: int) -> int:
        """Round `wanted` prompts up to a batch that the devices divide."""
        divisor = batch_divisor(self.mesh)
        return -(-wanted // divisor) * divisor

    @functools.cached_property
    def digest(self) -> str:
        """Hash the files that the policy was loaded from."""
        return model_digest(Path(self.name))


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How a policy is asked: samples a problem, their longest length in tokens, temperature, top-p and seed."""

    samples: int = 1
    max_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def settings(self, rollout: RolloutSection) -> SampleSettings:
        """Combine with all else that a `rollout` section says: a policy is measured as it is trained.

        One shape and one cache size: loose prompts come in many buckets, and each would compile all of them.
        """
        settings = SampleSettings.of(
            rollout, self.samples, self.max_tokens, temperature=self.temperature, top_p=self.top_p
        )
        return dataclasses.replace(settings, compactions=0, cache_sizes=1)


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
    """Plan the prompt of a problem as the policy's configuration words it; errors as `plan_prompt`."""
    config = policy.config
    return plan_prompt(problem, modality, policy.tokenizer, policy.layout, config.data, config.prompt)


def seen_by(policy: Policy, problem: Problem) -> Problem:
    """Put the size at which the policy sees its picture on a problem that is graded by it, even where it is hidden."""
    if problem.answer_type not in LOCATED:
        return problem
    pictures = [plan_picture(image, policy.config.data.image, policy.layout) for image in problem.images]
    return as_seen(problem, pictures, policy.layout.patch_size)


def ask(
    items: Sequence[Item],
    known: Sequence[bool] | Bool[np.ndarray, "items"],
    rows: int,
    answer: Callable[[Sequence[Item]], Sequence[Result]],
    record: Callable[[Sequence[Item], Sequence[Result]], None],
    progress: Callable[[int], None] = lambda passed: None,
) -> int:
    """Ask about every item that is not known yet, batch by batch; return how many those were.

    Batches are the same `rows` neighbours whatever is known, so that answers whose random numbers come from their batch
    (`batch_seed`) are those of a call that was never stopped. `answer(batch)` gives one result an item, on every
    process. `record` gets the new ones on process 0, whose `known` counts for all. `progress` is told how many items
    each batch has brought the call past. Raises DataError when a batch has another number of results.
    """
    left = ~_from_first(np.asarray(known, bool).reshape(len(items)))
    for start in range(0, len(items), rows):
        batch, wanted = items[start : start + rows], left[start : start + rows]
        if not wanted.any():
            continue
        results = answer(batch)
        if len(results) != len(batch):
            raise DataError(f"{len(results)} answers came back for {len(batch)} items")
        if jax.process_index() == 0:
            # A kill may have cut a batch in two: what it left is asked with the rest, as it was, and kept.
            new = np.flatnonzero(wanted).tolist()
            record([batch[place] for place in new], [results[place] for place in new])
        progress(start + len(batch))
    return int(left.sum())


def batch_seed(ids: Sequence[str], seed: int) -> int:
    """Derive a seed from the ids of a batch, not from a counter: a call that goes on samples what it would have."""
    return (zlib.crc32(repr(list(ids)).encode()) + seed) % 2**31


def identity(policy: Policy, settings: SampleSettings, seed: int) -> str:
    """Describe who answers and how in one line, equal for equal weights, prompts and sampling."""
    unlike = {
        field.name: getattr(settings, field.name)
        for field in dataclasses.fields(settings)
        if field.name not in ("group_size", "max_response", "temperature", "compactions", "cache_sizes")
        and getattr(settings, field.name) != field.default
    }
    config = policy.config
    asked = hashlib.sha256((config.prompt.model_dump_json() + config.data.image.model_dump_json()).encode())
    parts = [f"{policy.name} {policy.digest[:12]}", f"k={settings.group_size}", f"T={settings.temperature:g}"]
    parts += [f"max={settings.max_response}", *(f"{name}={value}" for name, value in unlike.items())]
    return " ".join([*parts, f"seed={seed}", f"prompt={asked.hexdigest()[:8]}"])


def model_digest(directory: Path) -> str:
    """Hash the names and the SHA-256 of a model's weights, configuration and tokenizer files."""
    files = sorted([*directory.glob("*.safetensors"), *(directory / name for name in MODEL_FILES)])
    files = [file for file in files if file.is_file()]
    with ThreadPoolExecutor(max_workers=4) as pool:
        digests = list(pool.map(_digest_of, files))
    lines = [f"{digest}  {file.name}\n" for digest, file in zip(digests, files, strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def answer(policy: Policy, plans: Sequence[PromptPlan], settings: SampleSettings, rows: int, seed: int) -> Answers:
    """Sample answers to at most `rows` prompts; every process calls this with the same prompts and gets all answers.

    Each process decodes the pictures of its own rows alone. Prompts of similar size share their compiled programs.
    """
    batch = _batch(policy, plans, rows)
    place = functools.partial(jax.device_put, device=replicated(policy.mesh))
    vocabulary = policy.model.vocab_size
    stops = place(_stops(policy.tokenizer, settings.stop, vocabulary)) if settings.stop else None
    allowed = place(allowed_tokens(policy.tokenizer, policy.model))
    with jax.set_mesh(policy.mesh):
        rollouts = _sampler(policy.model, settings, policy.mesh)(
            policy.params, shard_batch(batch, policy.mesh), allowed, stops, jax.random.key(seed)
        )
    tokens, mask, finished = (np.asarray(x)[: len(plans)] for x in (rollouts.tokens, rollouts.mask, rollouts.finished))
    return Answers(response_texts(policy.tokenizer, tokens, mask, policy.model.tokens.ends), finished, mask.sum(-1))


def bucket_of(length: int, slots: int, patches: int, layout: VisionLayout) -> tuple[int, tuple[int, int]]:
    """Choose the bucket (tokens, (image slots, patches)) of loose prompts, in steps of 1 and 1.5 times powers of 2.

    `length`, `slots` and `patches` are the most that any prompt of the batch has, on any process. Prompts of similar
    size share their compiled programs.
    """
    windows = round_up(patches // layout.window_patches, 1)
    images = (round_up(slots, 1), windows * layout.window_patches) if slots else (0, 0)
    return round_up(length, SMALLEST_TRUNK), images


def round_up(size: int, least: int) -> int:
    """Find the smallest of least x {1, 1.5, 2, 3, 4, 6, 8, ..} that is not below `size`, in whole numbers."""
    step = least
    while step < size:
        if step * 3 >= size * 2 and step % 2 == 0:
            return step * 3 // 2
        step *= 2
    return step


def _batch(policy: Policy, plans: Sequence[PromptPlan], rows: int) -> PromptBatch:
    """Encode this process's rows, in a bucket that all processes choose alike: from the shapes of the whole batch."""
    layout, share = policy.layout, row_share(policy.mesh)
    slots, patches = (max(plan.image_shape[axis] for plan in plans) for axis in (0, 1))
    length, images = bucket_of(max(plan.length for plan in plans), slots, patches, layout)
    # Rows beyond the last prompt repeat it; collate marks them as fillers where a process has any of its own.
    mine = [plans[row] for row in share.rows(rows) if row < len(plans)] or [plans[-1]]
    encoded = [encode_plan(plan, layout, policy.config.data) for plan in mine]
    return collate(encoded, rows // share.count, length, images, layout)


@functools.lru_cache(maxsize=8)
def _stops(tokenizer: Tokenizer, texts: tuple[str, ...], vocabulary: int) -> Int[np.ndarray, "N T V"]:
    return stop_tables(tokenizer, texts, vocabulary)


@functools.lru_cache(maxsize=64)
def _sampler(model: Model, settings: SampleSettings, mesh: Mesh) -> Callable[..., Rollouts]:
    def run(
        params: Params, batch: PromptBatch, allowed: jax.Array, stops: jax.Array | None, key: jax.Array
    ) -> Rollouts:
        return sample(params, model, settings, batch, allowed, key, None, stops)[0]

    # Answers go to every device: any process may read all of them.
    return jax.jit(run, out_shardings=replicated(mesh))


def _from_first(known: Bool[np.ndarray, "items"]) -> Bool[np.ndarray, "items"]:
    """Broadcast process 0's array: hosts must agree on what is left, or their collectives would not match."""
    return np.asarray(multihost_utils.broadcast_one_to_all(known)) if jax.process_count() > 1 else known


def _digest_of(file: Path) -> str:
    status = file.stat()
    return _file_digest(file.resolve(), status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=1024)
def _file_digest(file: Path, size: int, changed: int) -> str:
    """Hash a file; size and time of the last change are keys of the cache, so that weights are read once a process."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
