"""What is measured: a policy, and prompts of an exact number of tokens with pictures of an exact size."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int, PyTree
from PIL import Image

from infimmr_jax.config import ConfigError, DataSection, ImageSection, MeshSection, ModelSection, load_config
from infimmr_jax.config.model import ModelShape, VisionShape
from infimmr_jax.model.config import TokenIds, config_from_shape
from infimmr_jax.model.family import Model, preset_model
from infimmr_jax.model.hf import load_params
from infimmr_jax.model.hf_directory import read_directory
from infimmr_jax.model.options import ModelOptions
from infimmr_jax.model.presets import PRESETS
from infimmr_jax.model.trunk import Params
from infimmr_jax.names import Tokenizer
from infimmr_jax.parallel.mesh import make_mesh
from infimmr_jax.preprocess import tokenizer as tokenizers
from infimmr_jax.preprocess.batching import PromptBatch, collate
from infimmr_jax.preprocess.images import plan_grid
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

    `image_size` is the side in pixels of the one square picture of every prompt, as the model sees it; 0 for text.
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
    model: Model
    tokenizer: Tokenizer
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
    when both a directory and a configuration are given, or the prompts can not have that many tokens or such a picture.
    """
    if model is not None and config is not None:
        raise ConfigError("give a model directory or a configuration, not both")
    section = load_config(config, overrides).model if config is not None else ModelSection(path=model)
    size_name = section.preset if config is not None else f"qwen2.5-vl-{shape}" if shape != "small" else None
    if size_name is not None and size_name not in PRESETS:
        raise ConfigError(f"shape {shape!r} is unknown; choose one of small, {', '.join(PUBLISHED)}")
    chosen, vocabulary = (section.shape, section.vocab_size) if config is not None else (SMALL, SMALL_VOCABULARY)
    given = section.compute_dtype if config is not None and dtype is None else dtype
    kind = jnp.dtype(given or ("float32" if jax.default_backend() == "cpu" else "bfloat16"))
    if section.path is not None:
        policy, tokenizer = read_directory(section.path)
    else:
        tokenizer = bench_tokenizer(min(vocabulary, SMALL_VOCABULARY))
        tokens = token_ids(tokenizer)
        made = Model(config_from_shape(chosen, vocabulary, tokens)) if size_name is None else preset_model(size_name)
        policy = dataclasses.replace(made, config=dataclasses.replace(made.config, tokens=tokens))
    options = ModelOptions(
        compute_dtype=kind,
        param_dtype=kind if config is None else jnp.dtype(section.param_dtype),
        scan=policy.config.text.num_layers > 8,
        remat=section.remat if config is not None else remat,
        attention=section.attention,
    )
    policy = dataclasses.replace(policy, options=options)
    # Before the weights: of a published size they take long, and a wrong size of the prompts is said at once.
    prompts = exact_prompts(size, policy, tokenizer)
    if section.path is not None:
        params = load_params(section.path, policy, make_mesh(MeshSection(), jax.devices()[:1]))
    else:
        params = jax.jit(policy.init)(jax.random.key(0))
    allowed = allowed_tokens(tokenizer, policy)
    allowed[list(policy.tokens.ends)] = False
    batch = batch_of(prompts, size, policy)
    return Work(size, params, policy, tokenizer, tuple(prompts), batch, allowed)


def bench_tokenizer(vocabulary: int) -> PyTree:
    """The tokenizer of a model made from scratch: trained on made-up words, the same every time."""
    rng = np.random.default_rng(1)
    syllables = ["ba", "ke", "li", "mo", "nu", "ra", "se", "ti", "vo", "zu", "pla", "tre", "gri", "sho", "lun"]
    words = ["".join(rng.choice(syllables, size=rng.integers(1, 5))) for _ in range(4000)]
    texts = [" ".join(words[start : start + 20]) for start in range(0, len(words), 20)]
    return tokenizers.train_tokenizer([QUESTION, "system user assistant", *texts], vocabulary)


def token_ids(tokenizer: Tokenizer) -> TokenIds:
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


def prompt_texts(size: Size, model: Model, tokenizer: Tokenizer) -> list[tuple[str, Image.Image | None]]:
    """Questions padded with digits (one token each) to exactly `prompt_tokens` tokens, and their pictures of noise.

    Raises ConfigError when chat template and picture alone are longer, or the picture would be shown in another size.
    """
    _check_picture(size, model)
    rng = np.random.default_rng(10 + size.prompt_tokens)
    found = []
    for _ in range(size.prompts):
        picture = None
        if size.image_size:
            pixels = rng.integers(0, 256, (size.image_size, size.image_size, 3), np.uint8)
            picture = Image.fromarray(pixels)
        body = QUESTION
        if _length(body, picture, model, tokenizer) > size.prompt_tokens:
            body = "Question:"
        missing = size.prompt_tokens - _length(body, picture, model, tokenizer)
        if missing < 0:
            raise ConfigError(
                f"a prompt with a picture of {size.image_size} pixels has at least {size.prompt_tokens - missing} "
                f"tokens, not {size.prompt_tokens}; ask for more tokens or a smaller picture"
            )
        # No space before a digit: the two would be one token.
        found.append((body + "".join(str(digit) for digit in rng.integers(0, 10, missing)), picture))
    return found


def exact_prompts(size: Size, model: Model, tokenizer: Tokenizer) -> list[EncodedPrompt]:
    """`prompt_texts`, encoded."""
    return [encode(text, file, model, tokenizer) for text, file in prompt_files(size, model, tokenizer)]


def prompt_files(size: Size, model: Model, tokenizer: Tokenizer) -> list[tuple[str, bytes | None]]:
    """`prompt_texts` as a data source gives them: pictures as PNG files."""
    return [(text, _png(picture)) for text, picture in prompt_texts(size, model, tokenizer)]


def batch_of(prompts: Sequence[EncodedPrompt], size: Size, model: Model) -> PromptBatch:
    """Encoded prompts as one batch on the device, without a slot of padding."""
    rows, bucket = size.prompt_tokens - 1, prompts[0].image_shape
    return jax.device_put(collate(prompts, size.prompts, rows, bucket, model.layout))


def lognormal_limits(size: Size, longest: float, seed: int = 0) -> Int[np.ndarray, "P G"]:
    """Response lengths whose logarithm is normal, whose longest is `new_tokens` and `longest` times their median.

    Raises ConfigError when no lengths can be so.
    """
    if longest < 1:
        raise ConfigError(
            f"--longest {longest:g} asks for a longest response below the median; give at least 1, or 0 for "
            "equal lengths"
        )
    if size.rows < 2:
        raise ConfigError("--longest needs at least 2 responses, and there is 1; raise --group or --prompts")
    draws = np.random.default_rng(seed).normal(size=(size.prompts, size.group))
    spread = np.log(longest) / (draws.max() - np.median(draws))
    lengths = size.new_tokens * np.exp(spread * (draws - draws.max()))
    return np.maximum(1, np.round(lengths)).astype(np.int32)


def _length(text: str, picture: Image.Image | None, model: Model, tokenizer: Tokenizer) -> int:
    return len(encode(text, _png(picture), model, tokenizer).tokens)


def encode(text: str, picture: bytes | None, model: Model, tokenizer: Tokenizer) -> EncodedPrompt:
    """A question and its picture file as training encodes them: decoded, resized, tokenised."""
    layout, data = model.layout, DataSection(image=ImageSection())
    if picture is None:
        return encode_plan(plan_text(text, [], tokenizer, layout), layout, data)
    shown = plan_picture(picture, data.image, layout)
    return encode_plan(plan_text(IMAGE_MARK + text, [shown], tokenizer, layout), layout, data)


def _png(picture: Image.Image | None) -> bytes | None:
    if picture is None:
        return None
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _check_picture(size: Size, model: Model) -> None:
    if not size.image_size:
        return
    layout, side = model.layout, size.image_size
    _, rows, columns = plan_grid(side, side, ImageSection(), layout.patch_size, layout.merge_size)
    shown = rows * layout.patch_size, columns * layout.patch_size
    if shown != (side, side):
        raise ConfigError(
            f"a picture of {side} x {side} pixels would be shown as {shown[0]} x {shown[1]}; give --image-size such a "
            f"side: multiples of {layout.factor} that are neither too small nor too large for data.image"
        )
