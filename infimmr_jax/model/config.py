"""Architecture of a Qwen2.5-VL: read from a Hugging Face `config.json` (old or new layout) or from a ModelShape."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from infimmr_jax.config import ConfigError, ModelShape
from infimmr_jax.model.hf_keys import (
    Part,
    check_decoder_keys,
    check_layer_types,
    check_root_keys,
    check_vision_keys,
    refuse_unknown,
)
from infimmr_jax.model.hf_rotary import read_rotary
from infimmr_jax.model.rope_scaling import RopeScaling
from infimmr_jax.preprocess.json_file import JsonObject, read_json
from infimmr_jax.preprocess.layout import VisionLayout

# Far above any model: what is larger is a mistake or an attack, and would be laid out tensor by tensor.
MOST_LAYERS, MOST_WIDTH = 1000, 2**20


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
    rope_scaling: RopeScaling | None = None


@dataclasses.dataclass(frozen=True)
class TokenIds:
    """Ids of the special tokens that prompts are made of; of them responses hold only their end.

    `eos` is the end that demonstrations are given; a response also ends with one of `other_ends`.
    """

    pad: int
    eos: int
    vision_start: int
    vision_end: int
    image: int
    video: int
    other_ends: tuple[int, ...] = ()

    @property
    def ends(self) -> tuple[int, ...]:
        """Every id that ends a response, `eos` first."""
        return self.eos, *self.other_ends

    def with_ends(self, ends: Iterable[int]) -> TokenIds:
        """Make the same ids with these ends, the first of them as `eos`; repeated ones count once."""
        first, *others = dict.fromkeys(ends)
        return dataclasses.replace(self, eos=first, other_ends=tuple(others))


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
    """Describe the architecture of a model made from scratch."""
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


def config_facts(config: ModelConfig) -> JsonObject:
    """Describe an architecture as a plain tree, by which a checkpoint knows its model.

    What older checkpoints do not have is there only where it is not the default.
    """
    tree = dataclasses.asdict(config)
    for part, key in (("text", "rope_scaling"), ("tokens", "other_ends")):
        if not tree[part][key]:
            del tree[part][key]
    return tree


def vision_layout(config: ModelConfig) -> VisionLayout:
    """Say what preprocessing must know of this architecture."""
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


def read_tree(directory: Path) -> JsonObject:
    """Read `config.json` of a Hugging Face directory; raises ConfigError when there is none, or it is no object."""
    path = directory / "config.json"
    if not path.exists():
        beside = directory.parent / f".{directory.name}.old"
        advice = f"; an export was interrupted, the model before it is {beside}: rename it" if beside.exists() else ""
        raise ConfigError(f"{directory} is not a model directory: it has no config.json{advice}")
    return read_json(path)


def config_from_hf(tree: JsonObject, path: Path) -> ModelConfig:
    """Read the architecture of a config.json as any transformers since 4.49 writes it, flat or nested.

    Keys that are left out have the class defaults of transformers. The ends of a response are those of config.json and
    of generation_config.json beside it; `hf_directory.read_directory` adds those of the tokenizer and its template.
    Raises ConfigError for what is of a wrong type or size, not supported, or unknown (see `hf_keys`).
    """
    root = Part(tree, str(path))
    nested = root.part("text_config")
    check_root_keys(root, nested is not None)
    text, vision = _text_config(root, nested or root), _vision_config(root)
    return ModelConfig(text, vision, _token_ids(path.parent, root, nested or root, text.vocab_size))


def _text_config(root: Part, text: Part) -> TextConfig:
    if text is not root:
        check_decoder_keys(text)
    layers = text.integer("num_hidden_layers", 80, most=MOST_LAYERS)
    check_layer_types(text, layers)
    width = text.integer("hidden_size", 8192, most=MOST_WIDTH)
    heads = text.integer("num_attention_heads", 64, most=MOST_WIDTH)
    head_dim = text.integer("head_dim", max(1, width // heads), most=MOST_WIDTH)
    if head_dim * heads != width:
        raise ConfigError(
            f"{text.where}: {heads} heads of {head_dim} numbers are not hidden_size {width}, which is not supported"
        )
    positions = text.integer("max_position_embeddings", 32_768, most=2**40)
    theta, section, scaling = read_rotary(root, text, positions)
    return TextConfig(
        vocab_size=text.integer("vocab_size", 152_064, most=2**24),
        hidden_size=width,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=text.integer("num_key_value_heads", 8, most=MOST_WIDTH),
        head_dim=head_dim,
        intermediate_size=text.integer("intermediate_size", 29_568, most=MOST_WIDTH),
        mrope_section=section,
        rope_theta=theta,
        rms_norm_eps=text.number("rms_norm_eps", 1e-5, most=1.0),
        # transformers 4.57 writes it into the text_config alone, 5 at the root alone.
        tie_word_embeddings=root.flag("tie_word_embeddings", False) or text.flag("tie_word_embeddings", False),
        max_position_embeddings=positions,
        rope_scaling=scaling,
    )


def _vision_config(root: Part) -> VisionConfig:
    vision = root.part("vision_config") or Part({}, f"{root.where}, vision_config")
    check_vision_keys(vision)
    rope = vision.part("rope_parameters")
    if rope is not None:
        refuse_unknown(rope.where, set(rope.values) - {"rope_type", "type", "rope_theta"})
        kind = rope.values.get("rope_type", rope.values.get("type", "axial"))
        if kind not in ("axial", "default") or rope.number("rope_theta", 10_000.0) != 10_000:
            raise ConfigError(f"{rope.where}: only kind axial with rope_theta 10000 is supported")
    depth = vision.integer("depth", 32, most=MOST_LAYERS)
    channels = vision.integer("in_channels", vision.integer("in_chans", 3, most=64), most=64)
    patch = vision.integer("patch_size", 14, most=1024)
    for key, value in (("in_chans", channels), ("spatial_patch_size", patch)):
        if vision.integer(key, value, most=1024) != value:
            raise vision.wrong(key, f"it does not agree with {value}")
    full = vision.integers("fullatt_block_indexes", (7, 15, 23, 31), most=MOST_LAYERS)
    return VisionConfig(
        depth=depth,
        hidden_size=vision.integer("hidden_size", 3584, most=MOST_WIDTH),
        num_heads=vision.integer("num_heads", 16, most=MOST_WIDTH),
        intermediate_size=vision.integer("intermediate_size", 3420, most=MOST_WIDTH),
        out_hidden_size=vision.integer("out_hidden_size", 3584, most=MOST_WIDTH),
        # Indexes of no block mean nothing to transformers either.
        fullatt_block_indexes=tuple(index for index in full if 0 <= index < depth),
        window_size=vision.integer("window_size", 112, most=2**16),
        patch_size=patch,
        temporal_patch_size=vision.integer("temporal_patch_size", 2, most=64),
        spatial_merge_size=vision.integer("spatial_merge_size", 2, most=64),
        in_channels=channels,
        tokens_per_second=vision.number("tokens_per_second", 4.0, least=1e-6, most=1e6),
    )


def _token_ids(directory: Path, root: Part, text: Part, vocabulary: int) -> TokenIds:
    path = directory / "generation_config.json"
    generation = Part(read_json(path), str(path)) if path.exists() else Part({}, str(path))
    parts = list({id(part): part for part in (root, text, generation)}.values())

    def ids(key: str) -> tuple[int, ...]:
        """What the files say, config.json first; a list says several."""
        given: list[int] = []
        for part in parts:
            value = part.values.get(key)
            one = part if isinstance(value, list | None) else Part({key: [value]}, part.where)
            for number in one.integers(key, ()):
                if not 0 <= number < vocabulary:
                    raise part.wrong(key, f"the embedding table has the rows 0 to {vocabulary - 1}")
                given.append(number)
        return tuple(dict.fromkeys(given))

    def one(key: str, default: int) -> int:
        # The published ids are class defaults of transformers since 4.52.
        if given := ids(key):
            return given[0]
        if default >= vocabulary:
            raise ConfigError(
                f"{root.where} has no key {key}, and the default {default} is beyond the {vocabulary} rows"
            )
        return default

    ends = ids("eos_token_id") or (one("eos_token_id", 151_645),)
    return TokenIds(
        pad=(ids("pad_token_id") or ids("bos_token_id") or ends)[0],
        eos=ends[0],
        vision_start=one("vision_start_token_id", 151_652),
        vision_end=one("vision_end_token_id", 151_653),
        image=one("image_token_id", 151_655),
        video=one("video_token_id", 151_656),
        other_ends=ends[1:],
    )


def to_hf_config(config: ModelConfig, dtype: str = "float32") -> JsonObject:
    """Write the tree of a `config.json` that `transformers` (old and new) reads as this architecture."""
    text, vision, tokens = config.text, config.vision, config.tokens
    kind = "default" if text.rope_scaling is None else text.rope_scaling.kind
    scaling = {} if text.rope_scaling is None else dataclasses.asdict(text.rope_scaling)
    rope = {"type": kind, "rope_type": kind, "mrope_section": list(text.mrope_section)}
    # Left out where it is the default: transformers below 4.57 does not know `truncate`, and warns.
    left_out = {"kind", *(["truncate"] if scaling.get("truncate") else [])}
    rope |= {key: value for key, value in scaling.items() if key not in left_out and value is not None}
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
