"""The published sizes of Qwen2.5-VL-Instruct, as in their `config.json`: a shape can be planned without its weights."""

from __future__ import annotations

import dataclasses

from infimmr_jax.config import ConfigError
from infimmr_jax.model.config import ModelConfig, TextConfig, TokenIds, VisionConfig

# Of every Qwen2.5-VL tokenizer.
PUBLISHED_TOKENS = TokenIds(
    pad=151_643, eos=151_645, vision_start=151_652, vision_end=151_653, image=151_655, video=151_656
)


def _published(
    width: int, layers: int, heads: int, kv_heads: int, hidden: int, vocabulary: int, tied: bool, vision_hidden: int
) -> ModelConfig:
    text = TextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=128,
        intermediate_size=hidden,
        mrope_section=(16, 24, 24),
        tie_word_embeddings=tied,
    )
    vision = VisionConfig(
        depth=32,
        hidden_size=1280,
        num_heads=16,
        intermediate_size=vision_hidden,
        out_hidden_size=width,
        fullatt_block_indexes=(7, 15, 23, 31),
    )
    return ModelConfig(text=text, vision=vision, tokens=PUBLISHED_TOKENS)


# Qwen/Qwen2.5-VL-{3B,7B,32B,72B}-Instruct on the Hugging Face hub.
PRESETS: dict[str, ModelConfig] = {
    "qwen2.5-vl-3b": _published(2048, 36, 16, 2, 11_008, 151_936, True, 3420),
    "qwen2.5-vl-7b": _published(3584, 28, 28, 4, 18_944, 152_064, False, 3420),
    "qwen2.5-vl-32b": _published(5120, 64, 40, 8, 27_648, 152_064, False, 3456),
    "qwen2.5-vl-72b": _published(8192, 80, 64, 8, 29_568, 152_064, False, 3456),
}


def check_preset(found: ModelConfig, preset: str, origin: str) -> None:
    """Raise ConfigError when a model directory does not hold the architecture of the preset."""
    wanted = PRESETS[preset]
    for part in ("text", "vision"):
        one, other = (dataclasses.asdict(getattr(config, part)) for config in (found, wanted))
        differing = [key for key in other if one[key] != other[key] and key != "max_position_embeddings"]
        if differing:
            key = differing[0]
            raise ConfigError(
                f"{origin} is not the {preset} of model.preset: its {part} {key} is {one[key]}, not {other[key]}; "
                "give the directory of that size, or drop model.preset"
            )
