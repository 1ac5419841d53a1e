"""Architecture of a Qwen2.5-VL: read from a Hugging Face `config.json` (old or new layout) or from a ModelShape."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from infimmr_jax.config import ConfigError, ModelShape
from infimmr_jax.preprocess.layout import VisionLayout


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """The vision tower: a ViT over 14-pixel patches with window and full attention, 2x2 merger at the end."""

    depth: int
    hidden_size: int
    num_heads: int
    intermediate_size: int
    out_hidden_size: int
    fullatt_block_indexes: tuple[int, ...]
    window_size: int = 112
    patch_size: int = 14
    temporal_patch_size: int = 2
    spatial_merge_size: int = 2
    in_channels: int = 3
    tokens_per_second: float = 2.0
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10_000.0

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def patch_dim(self) -> int:
        """Numbers in one flattened patch: channels x frames x 14 x 14 (1176)."""
        return self.in_channels * self.temporal_patch_size * self.patch_size**2

    @property
    def window_patches(self) -> int:
        """Patches in one full attention window (64 at 112 pixels)."""
        return (self.window_size // self.patch_size) ** 2

    @property
    def merge_unit(self) -> int:
        """Patches merged into one visual token (4)."""
        return self.spatial_merge_size**2


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """The Qwen2 decoder: grouped-query attention with QKV bias, SwiGLU, multimodal RoPE."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    mrope_section: tuple[int, int, int]
    rope_theta: float = 1_000_000.0
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = True
    max_position_embeddings: int = 128_000


@dataclasses.dataclass(frozen=True)
class TokenIds:
    """Ids of the special tokens that prompts are made of and that responses may not hold."""

    pad: int
    eos: int
    vision_start: int
    vision_end: int
    image: int
    video: int


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A whole Qwen2.5-VL; hashable, so it can be a static argument of jitted functions."""

    text: TextConfig
    vision: VisionConfig
    tokens: TokenIds

    def __post_init__(self) -> None:
        text, vision = self.text, self.vision
        checks = [
            (sum(text.mrope_section) * 2 == text.head_dim, "the sum of mrope_section must be half of the head size"),
            (text.num_heads % text.num_kv_heads == 0, "num_heads must be a multiple of num_kv_heads"),
            (vision.hidden_size % vision.num_heads == 0, "the vision width must be a multiple of its heads"),
            (vision.head_dim % 4 == 0, "the vision head size must be a multiple of 4 (2-D RoPE)"),
            (
                vision.window_size % (vision.patch_size * vision.spatial_merge_size) == 0,
                "window_size must be a multiple of patch_size x spatial_merge_size",
            ),
            (vision.out_hidden_size == text.hidden_size, "the merger's width must equal the decoder's"),
            (
                all(0 <= index < vision.depth for index in vision.fullatt_block_indexes),
                "fullatt_block_indexes must name existing vision blocks",
            ),
        ]
        for holds, sentence in checks:
            if not holds:
                raise ConfigError(f"this model shape can not be built: {sentence} ({text}, {vision})")


def config_from_shape(shape: ModelShape, vocab_size: int, tokens: TokenIds) -> ModelConfig:
    """The architecture of a model made from scratch."""
    text = TextConfig(
        vocab_size=vocab_size,
        hidden_size=shape.hidden_size,
        num_layers=shape.num_layers,
        num_heads=shape.num_heads,
        num_kv_heads=shape.num_kv_heads,
        head_dim=shape.hidden_size // shape.num_heads,
        intermediate_size=shape.intermediate_size,
        mrope_section=shape.mrope_section,
        rope_theta=shape.rope_theta,
        tie_word_embeddings=shape.tie_word_embeddings,
    )
    vision = VisionConfig(
        depth=shape.vision.depth,
        hidden_size=shape.vision.hidden_size,
        num_heads=shape.vision.num_heads,
        intermediate_size=shape.vision.intermediate_size,
        out_hidden_size=shape.hidden_size,
        window_size=shape.vision.window_size,
        fullatt_block_indexes=shape.vision.fullatt_block_indexes,
    )
    return ModelConfig(text=text, vision=vision, tokens=tokens)


def vision_layout(config: ModelConfig) -> VisionLayout:
    """What preprocessing must know of this architecture."""
    vision, tokens = config.vision, config.tokens
    return VisionLayout(
        image_token_id=tokens.image,
        video_token_id=tokens.video,
        vision_start_token_id=tokens.vision_start,
        vision_end_token_id=tokens.vision_end,
        patch_size=vision.patch_size,
        merge_size=vision.spatial_merge_size,
        temporal_patch_size=vision.temporal_patch_size,
        window_size=vision.window_size,
        tokens_per_second=vision.tokens_per_second,
    )


def read_tree(directory: Path) -> dict[str, Any]:
    """Read `config.json` of a Hugging Face directory; raises ConfigError when there is none."""
    path = directory / "config.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{directory} is not a model directory: it has no config.json") from None
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON: {error}") from error


def config_from_hf(tree: dict[str, Any], path: Path) -> ModelConfig:
    """Read the architecture from the tree of a config.json, in the old flat or the new nested layout."""
    try:
        return _from_hf(tree)
    except KeyError as error:
        raise ConfigError(f"{path} has no key {error}: give a complete Qwen2.5-VL config.json") from error


def _from_hf(tree: dict[str, Any]) -> ModelConfig:
    text = tree.get("text_config") or tree
    vision = tree["vision_config"]
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    theta = rope.get("rope_theta") or text.get("rope_theta") or tree.get("rope_theta")
    if theta is None:
        raise KeyError("rope_theta")
    unsupported = {"hidden_act": "silu"}
    for key, value in unsupported.items():
        for part in (text, vision):
            if part.get(key, value) != value:
                raise ConfigError(f"{key} {part[key]!r} is not supported, only {value!r}")
    if text.get("use_sliding_window"):
        raise ConfigError("use_sliding_window: true is not supported")
    tied = tree["tie_word_embeddings"] if "tie_word_embeddings" in tree else text.get("tie_word_embeddings", False)

    def token(name: str, default: int | None = None) -> int:
        for part in (tree, text):
            value = part.get(name)
            if value is not None:
                return int(value[0] if isinstance(value, list) else value)
        if default is None:
            raise KeyError(name)
        return default

    eos = token("eos_token_id")
    return ModelConfig(
        text=TextConfig(
            vocab_size=text["vocab_size"],
            hidden_size=text["hidden_size"],
            num_layers=text["num_hidden_layers"],
            num_heads=text["num_attention_heads"],
            num_kv_heads=text["num_key_value_heads"],
            head_dim=text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"],
            intermediate_size=text["intermediate_size"],
            mrope_section=tuple(rope["mrope_section"]),
            rope_theta=float(theta),
            rms_norm_eps=text["rms_norm_eps"],
            tie_word_embeddings=bool(tied),
            max_position_embeddings=text.get("max_position_embeddings", 128_000),
        ),
        vision=VisionConfig(
            depth=vision["depth"],
            hidden_size=vision["hidden_size"],
            num_heads=vision["num_heads"],
            intermediate_size=vision["intermediate_size"],
            out_hidden_size=vision["out_hidden_size"],
            fullatt_block_indexes=tuple(vision["fullatt_block_indexes"]),
            window_size=vision["window_size"],
            patch_size=vision.get("patch_size") or vision["spatial_patch_size"],
            temporal_patch_size=vision["temporal_patch_size"],
            spatial_merge_size=vision["spatial_merge_size"],
            in_channels=vision.get("in_channels") or vision.get("in_chans") or 3,
            tokens_per_second=float(vision.get("tokens_per_second", 2)),
        ),
        tokens=TokenIds(
            pad=token("pad_token_id", token("bos_token_id", eos)),
            eos=eos,
            vision_start=token("vision_start_token_id"),
            vision_end=token("vision_end_token_id"),
            image=token("image_token_id"),
            video=token("video_token_id"),
        ),
    )


def to_hf_config(config: ModelConfig, dtype: str = "float32") -> dict[str, Any]:
    """The tree of a `config.json` that `transformers` (old and new) reads as this architecture."""
    text, vision, tokens = config.text, config.vision, config.tokens
    rope = {"type": "default", "rope_type": "default", "mrope_section": list(text.mrope_section)}
    decoder = {
        "vocab_size": text.vocab_size,
        "hidden_size": text.hidden_size,
        "num_hidden_layers": text.num_layers,
        "num_attention_heads": text.num_heads,
        "num_key_value_heads": text.num_kv_heads,
        "intermediate_size": text.intermediate_size,
        "hidden_act": "silu",
        "max_position_embeddings": text.max_position_embeddings,
        "rms_norm_eps": text.rms_norm_eps,
        "rope_theta": text.rope_theta,
        "rope_scaling": rope,
        "use_sliding_window": False,
        "attention_dropout": 0.0,
        "bos_token_id": tokens.pad,
        "eos_token_id": tokens.eos,
        "pad_token_id": tokens.pad,
    }
    return {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        **decoder,
        "tie_word_embeddings": text.tie_word_embeddings,
        "torch_dtype": dtype,
        "vision_start_token_id": tokens.vision_start,
        "vision_end_token_id": tokens.vision_end,
        "image_token_id": tokens.image,
        "video_token_id": tokens.video,
        "vision_config": {
            "model_type": "qwen2_5_vl",
            "depth": vision.depth,
            "hidden_size": vision.hidden_size,
            "hidden_act": "silu",
            "num_heads": vision.num_heads,
            "intermediate_size": vision.intermediate_size,
            "out_hidden_size": vision.out_hidden_size,
            "fullatt_block_indexes": list(vision.fullatt_block_indexes),
            "window_size": vision.window_size,
            "patch_size": vision.patch_size,
            "spatial_patch_size": vision.patch_size,
            "temporal_patch_size": vision.temporal_patch_size,
            "spatial_merge_size": vision.spatial_merge_size,
            "in_channels": vision.in_channels,
            "in_chans": vision.in_channels,
            # transformers 5 refuses a float here, although it multiplies it by one.
            "tokens_per_second": int(seconds) if (seconds := vision.tokens_per_second).is_integer() else seconds,
        },
    }
