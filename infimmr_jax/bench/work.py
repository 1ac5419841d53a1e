"""What is measured: a policy, and prompts of an exact number of tokens with pictures of an exact size."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int
from PIL import Image

from infimmr_jax.config import ConfigError, DataSection, ImageSection, MeshSection, ModelSection, load_config
from infimmr_jax.config.model import ModelShape, VisionShape
from infimmr_jax.model.config import ModelConfig, TokenIds, config_from_shape, read_config, vision_layout
from infimmr_jax.model.hf import load_params
from infimmr_jax.model.options import ModelOptions
from infimmr_jax.model.presets import PRESETS
from infimmr_jax.model.qwen2_5_vl import Params, init_params
from infimmr_jax.parallel.mesh import make_mesh
from infimmr_jax.preprocess import tokenizer as tokenizers
from infimmr_jax.preprocess.batching import PromptBatch, collate
from infimmr_jax.preprocess.prompts import IMAGE_MARK, EncodedPrompt, encode_plan, plan_picture, plan_text
from infimmr_jax.rollout.vocabulary import allowed_tokens

QUESTION = "Question: what is the area of the triangle in the image? Choices: (A) 3 (B) 4 (C) 5 (D) 6"
SMALL = ModelShape(
    hidden_size=256,
    num_layers=6,
    num_heads=4,
    num_kv_heads=2,
    intermediate_size=768,
    mrope_section=(8, 12, 12),
    rope_theta=1e6,
    vision=VisionShape(
        hidden_size=128, depth=4, num_heads=4, intermediate_size=256, window_size=112, fullatt_block_indexes=(3,)
    ),
)
# A small shape for a CPU, and the published sizes by their short names.
SMALL_VOCABULARY = 2048
PUBLISHED = {name.removeprefix("qwen2.5-vl-"): preset for name, preset in PRESETS.items()}


@dataclasses.dataclass(frozen=True)
class Size:
    """What a measurement is about: P prompts of `prompt_tokens` tokens, G responses of `new_tokens` to each.

    `image_size` is the side of the one square picture of every prompt in pixels, 0 for text alone.
    """

    prompts: int = 4
    prompt_tokens: int = 64
    image_size: int = 112
    group: int = 8
    new_tokens: int = 128

    @property
    def rows(self) -> int:
        """Responses of one batch."""
        return self.prompts * self.group


@dataclasses.dataclass(frozen=True)
class Work:
    """Everything a measurement runs on; `allowed` leaves the end token out, so that every response has its length."""

    size: Size
    params: Params
    config: ModelConfig
    options: ModelOptions
    tokenizer: Any
    prompts: tuple[EncodedPrompt, ...]
    batch: PromptBatch
    allowed: Bool[np.ndarray, "V"]


def load_work(
    size: Size,
    *,
    model: Path | None = None,
    config: Path | None = None,
    overrides: list[str] | None = None,
    shape: str = "small",
    dtype: str | None = None,
    remat: str = "none",
) -> Work:
    """The policy of a model directory, of a run's configuration, or random weights: `small` or a published size.

    `dtype` None is bfloat16 on an accelerator and float32 on a CPU; a configuration brings its own. Raises ConfigError
    when both a directory and a configuration are given, or the prompts can not have that many tokens.
    """
    if model is not None and config is not None:
        raise ConfigError("give a model directory or a configuration, not both")
    section = load_config(config, overrides).model if config is not None else ModelSection(path=model)
    size_name = section.preset if config is not None else f"qwen2.5-vl-{shape}" if shape != "small" else None
    if size_name is not None and size_name not in PRESETS:
        raise ConfigError(f"shape {shape!r} is unknown; choose one of small, {', '.join(PUBLISHED)}")
    preset = PRESETS[size_name] if size_name is not None else None
    chosen, vocabulary = (section.shape, section.vocab_size) if config is not None else (SMALL, SMALL_VOCABULARY)
    given = section.compute_dtype if config is not None and dtype is None else dtype
    kind = jnp.dtype(given or ("float32" if jax.default_backend() == "cpu" else "bfloat16"))
    known = read_config(section.path) if section.path is not None else preset
    layers = known.text.num_layers if known is not None else chosen.num_layers
    options = ModelOptions(
        compute_dtype=kind,
        param_dtype=kind if config is None else jnp.dtype(section.param_dtype),
        scan=layers > 8,
        remat=section.remat if config is not None else remat,
        attention=section.attention,
    )
    if section.path is not None:
        architecture, tokenizer = read_config(section.path), tokenizers.load_tokenizer(section.path)
        params = load_params(section.path, architecture, options, make_mesh(MeshSection(), jax.devices()[:1]))
    else:
        tokenizer = bench_tokenizer(min(vocabulary, SMALL_VOCABULARY))
        tokens = token_ids(tokenizer)
        made = config_from_shape(chosen, vocabulary, tokens)
        architecture = dataclasses.replace(preset, tokens=tokens) if preset is not None else made
        params = jax.jit(lambda key: init_params(key, architecture, options))(jax.random.key(0))
    prompts = exact_prompts(size, architecture, tokenizer)
    allowed = allowed_tokens(tokenizer, architecture)
    allowed[architecture.tokens.eos] = False
    unit = architecture.vision.merge_unit
    bucket = prompts[0].image_shape
    batch = collate(prompts, size.prompts, size.prompt_tokens - 1, bucket, unit, architecture.vision.patch_dim)
    return Work(size, params, architecture, options, tokenizer, tuple(prompts), jax.device_put(batch), allowed)


def bench_tokenizer(vocabulary: int) -> Any:
    """The tokenizer of a model made from scratch: trained on made-up words, the same every time."""
    rng = np.random.default_rng(1)
    syllables = ["ba", "ke", "li", "mo", "nu", "ra", "se", "ti", "vo", "zu", "pla", "tre", "gri", "sho", "lun"]
    words = ["".join(rng.choice(syllables, size=rng.integers(1, 5))) for _ in range(4000)]
    texts = [" ".join(words[start : start + 20]) for start in range(0, len(words), 20)]
    return tokenizers.train_tokenizer([QUESTION, "system user assistant", *texts], vocabulary)


def token_ids(tokenizer: Any) -> TokenIds:
    """The special tokens of a tokenizer made here."""
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in tokenizers.SPECIAL_TOKENS}
    return TokenIds(
        pad=ids[tokenizers.END_OF_TEXT],
        eos=ids[tokenizers.IM_END],
        vision_start=ids[tokenizers.VISION_START],
        vision_end=ids[tokenizers.VISION_END],
        image=ids[tokenizers.IMAGE_PAD],
        video=ids[tokenizers.VIDEO_PAD],
    )


def prompt_texts(size: Size, config: ModelConfig, tokenizer: Any) -> list[tuple[str, Image.Image | None]]:
    """Questions padded with digits (one token each) to exactly `prompt_tokens` tokens, and their pictures of noise.

    Raises ConfigError when chat template and picture alone are longer.
    """
    rng = np.random.default_rng(10 + size.prompt_tokens)
    found = []
    for _ in range(size.prompts):
        picture = None
        if size.image_size:
            pixels = rng.integers(0, 256, (size.image_size, size.image_size, 3), np.uint8)
            picture = Image.fromarray(pixels)
        body = QUESTION
        if _length(body, picture, config, tokenizer) > size.prompt_tokens:
            body = "Question:"
        missing = size.prompt_tokens - _length(body, picture, config, tokenizer)
        if missing < 0:
            raise ConfigError(
                f"a prompt with a picture of {size.image_size} pixels has at least {size.prompt_tokens - missing} "
                f"tokens, not {size.prompt_tokens}; ask for more tokens or a smaller picture"
            )
        # No space before a digit: the two would be one token.
        found.append((body + "".join(str(digit) for digit in rng.integers(0, 10, missing)), picture))
    return found


def exact_prompts(size: Size, config: ModelConfig, tokenizer: Any) -> list[EncodedPrompt]:
    """`prompt_texts`, encoded."""
    texts = prompt_texts(size, config, tokenizer)
    return [_encode(text, picture, config, tokenizer) for text, picture in texts]


def lognormal_limits(size: Size, longest: float, seed: int = 0) -> Int[np.ndarray, "P G"]:
    """Response lengths whose logarithm is normal, whose longest is `new_tokens` and `longest` times their median."""
    draws = np.random.default_rng(seed).normal(size=(size.prompts, size.group))
    spread = np.log(longest) / (draws.max() - np.median(draws))
    lengths = size.new_tokens * np.exp(spread * (draws - draws.max()))
    return np.maximum(1, np.round(lengths)).astype(np.int32)


def _length(text: str, picture: Image.Image | None, config: ModelConfig, tokenizer: Any) -> int:
    return len(_encode(text, picture, config, tokenizer).tokens)


def _encode(text: str, picture: Image.Image | None, config: ModelConfig, tokenizer: Any) -> EncodedPrompt:
    layout, data = vision_layout(config), DataSection(image=ImageSection())
    if picture is None:
        return encode_plan(plan_text(text, [], tokenizer, layout), layout, data)
    file = io.BytesIO()
    picture.save(file, "PNG")
    shown = plan_picture(file.getvalue(), data.image, layout)
    return encode_plan(plan_text(IMAGE_MARK + text, [shown], tokenizer, layout), layout, data)
