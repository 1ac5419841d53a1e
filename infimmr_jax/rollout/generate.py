"""Answer one question as a stream of text: images, a video, or text alone, by the sampler's own decode step."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool
from transformers import PreTrainedTokenizerBase

from infimmr_jax.config import ConfigError, DataSection, MeshSection, VideoSection
from infimmr_jax.model.family import Model
from infimmr_jax.model.hf import load_params
from infimmr_jax.model.hf_directory import read_directory
from infimmr_jax.model.options import ModelOptions
from infimmr_jax.model.trunk import Params, Trunk
from infimmr_jax.parallel.mesh import make_mesh
from infimmr_jax.preprocess.batching import PromptBatch, collate
from infimmr_jax.preprocess.processor_config import directory_image
from infimmr_jax.preprocess.prompts import IMAGE_MARK, PromptPlan, Visual, encode_plan, plan_picture, plan_text
from infimmr_jax.preprocess.video import plan_video
from infimmr_jax.rollout.policy import bucket_of, round_up
from infimmr_jax.rollout.sampler import initial_state, sample_step
from infimmr_jax.rollout.state import RowInputs, SamplerState, SampleSettings
from infimmr_jax.rollout.vocabulary import TextStream, allowed_tokens


@dataclasses.dataclass(frozen=True)
class Generator:
    """A loaded model and all that is fixed between questions; `stops` are the ids that end an answer."""

    params: Params
    model: Model
    tokenizer: PreTrainedTokenizerBase
    stops: frozenset[int]
    data: DataSection
    video: VideoSection


def load_generator(
    directory: Path,
    dtype: str | None = None,
    data: DataSection | None = None,
    video: VideoSection | None = None,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
) -> Generator:
    """Load a Hugging Face directory on one device; `dtype` None is bfloat16 on an accelerator and float32 on a CPU.

    `data` and `video` bound the pixels of images and the frames of videos. Without `data` images have the pixel budget
    of the directory; `min_pixels` and `max_pixels` replace its numbers.
    Raises ConfigError when the directory does not hold a whole Qwen2.5-VL with its tokenizer.
    """
    device = jax.devices()[0]
    kind = jnp.dtype(dtype or ("float32" if device.platform == "cpu" else "bfloat16"))
    model, tokenizer = read_directory(directory, ModelOptions(compute_dtype=kind, param_dtype=kind))
    data = data or DataSection(image=directory_image(directory, min_pixels, max_pixels))
    params = load_params(directory, model, make_mesh(MeshSection(), [device]))
    return Generator(params, model, tokenizer, frozenset(model.tokens.ends), data, video or VideoSection())


def generate(
    generator: Generator,
    question: str,
    images: Sequence[Path] = (),
    videos: Sequence[Path] = (),
    *,
    system: str | None = None,
    max_new_tokens: int = 1024,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    stop: Sequence[str] = (),
    seed: int = 0,
) -> Iterator[str]:
    """Yield the answer to a question, piece by piece, until the model ends it or `max_new_tokens` are out.

    `<image>` marks in the question say where the images and then the videos (files or folders of frames) go; without
    marks all come first. Temperature 0 is greedy. The answer also ends with the piece that completes one of `stop`.
    Questions of similar size share their compiled programs.
    Raises ConfigError or DataError, before the first piece, for what can not be shown or is too long.
    """
    if max_new_tokens < 1:
        raise ConfigError(f"an answer of {max_new_tokens} tokens can not be given; ask for at least 1")
    if temperature < 0 or top_k < 0 or not 0 < top_p <= 1:
        raise ConfigError(
            f"temperature {temperature} and top_k {top_k} must not be negative, top_p {top_p} must lie in (0, 1]"
        )
    if not 0 <= min_p < 1 or repetition_penalty <= 0 or not all(stop):
        raise ConfigError(
            f"min_p {min_p} must lie in [0, 1), repetition_penalty {repetition_penalty} above 0, and no stop be empty"
        )
    plan = plan_question(generator, question, images, videos, system)
    longest = generator.model.config.text.max_position_embeddings
    if plan.length + 1 + max_new_tokens > longest:
        raise ConfigError(
            f"a prompt of {plan.length + 1} tokens and an answer of {max_new_tokens} are more than the model's "
            f"{longest} positions; ask for fewer tokens, or show fewer or smaller images"
        )
    settings = SampleSettings(
        1, round_up(max_new_tokens, 64), temperature, top_k, top_p, min_p, repetition_penalty=repetition_penalty
    )
    batch = bucket_batch(generator, plan)
    tokens = stream_tokens(generator, batch, settings, max_new_tokens, seed)
    stream = TextStream(generator.tokenizer)
    return _until(_texts(tokens, stream), tuple(stop))


def plan_question(
    generator: Generator, question: str, images: Sequence[Path], videos: Sequence[Path], system: str | None = None
) -> PromptPlan:
    """Plan the prompt of one question, with shapes known and no pixel decoded."""
    layout, data = generator.model.layout, generator.data
    visuals: list[Visual] = [plan_picture(path, data.image, layout) for path in images]
    visuals += [plan_video(path, generator.video, data.image, layout) for path in videos]
    text = question if IMAGE_MARK in question else IMAGE_MARK * len(visuals) + question
    return plan_text(text, visuals, generator.tokenizer, layout, system, name="question")


def bucket_batch(generator: Generator, plan: PromptPlan) -> PromptBatch:
    """Encode the question in its bucket (`policy.bucket_of`)."""
    layout = generator.model.layout
    bucket, images = bucket_of(plan.length, *plan.image_shape, layout)
    return collate([encode_plan(plan, layout, generator.data)], 1, bucket, images, layout)


def stream_tokens(
    generator: Generator, batch: PromptBatch, settings: SampleSettings, limit: int, seed: int
) -> Iterator[int]:
    """Yield the ids of the one prompt's answer as they are sampled, until a stop id (not yielded) or `limit` of them.

    With the same settings and seed these are the ids that `sampler.sample` gives.
    """
    model = generator.model
    allowed = allowed_tokens(generator.tokenizer, model)
    allowed[[stop for stop in generator.stops if stop < len(allowed)]] = True
    trunk, state = _start(generator.params, model, settings, batch)
    keys = jax.random.fold_in(jax.random.key(seed), 0).reshape(1, 1)
    coming: list[Array] = []
    for _ in range(limit):
        state, token = _step(generator.params, model, settings, trunk, allowed, keys, state)
        coming.append(token)
        # One step ahead of the reader: the device does not wait while the text is written.
        if len(coming) == 2:
            value = int(coming.pop(0))
            if value in generator.stops:
                return
            yield value
    last = int(coming.pop())
    if last not in generator.stops:
        yield last


@functools.partial(jax.jit, static_argnums=(1, 2))
def _start(params: Params, model: Model, settings: SampleSettings, batch: PromptBatch) -> tuple[Trunk, SamplerState]:
    trunk = model.trunk(params, batch)
    return trunk, initial_state(model, settings, trunk.start, batch)


@functools.partial(jax.jit, static_argnums=(1, 2), donate_argnums=6)
def _step(
    params: Params,
    model: Model,
    settings: SampleSettings,
    trunk: Trunk,
    allowed: Bool[Array, "V"],
    keys: Array,
    state: SamplerState,
) -> tuple[SamplerState, Array]:
    weights, kv = model.decode_inputs(params, trunk)
    state = sample_step(weights, model, settings, trunk.start, kv, allowed, RowInputs(keys, None), None, state)
    # A copy of its own: the state is donated to the next step before this token is read.
    return state, state.last[0, 0] + 0


def _texts(tokens: Iterator[int], stream: TextStream) -> Iterator[str]:
    for token in tokens:
        text = stream.push(token)
        if text:
            yield text
    rest = stream.finish()
    if rest:
        yield rest


def _until(pieces: Iterator[str], stops: tuple[str, ...]) -> Iterator[str]:
    """The pieces up to the one that completes a stop."""
    longest, tail = max(map(len, stops), default=0), ""
    for piece in pieces:
        yield piece
        tail += piece
        if any(stop in tail for stop in stops):
            return
        tail = tail[max(0, len(tail) - longest) :]
