"""Architectures read from config.json in the published (flat) and today's (nested) layout, and written back."""

import json

import pytest

from infimmr_jax.config import ConfigError
from infimmr_jax.model.config import TextConfig, TokenIds, VisionConfig, to_hf_config, vision_layout
from infimmr_jax.model.family import read_model

# The published 3B's config.json, without what says nothing about the architecture.
FLAT = {
    "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "image_token_id": 151655,
    "video_token_id": 151656,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 11008,
    "max_position_embeddings": 128000,
    "model_type": "qwen2_5_vl",
    "num_attention_heads": 16,
    "num_hidden_layers": 36,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "vision_config": {
        "depth": 32,
        "hidden_act": "silu",
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "in_chans": 3,
        "out_hidden_size": 2048,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "tokens_per_second": 2,
        "temporal_patch_size": 2,
    },
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "vocab_size": 151936,
}


def nested():
    """The same as transformers 5 writes it."""
    moved = ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "num_key_value_heads")
    moved += ("rms_norm_eps", "vocab_size", "max_position_embeddings", "hidden_act", "bos_token_id", "eos_token_id")
    tree = {key: value for key, value in FLAT.items() if key not in (*moved, "rope_theta", "rope_scaling")}
    tree["text_config"] = {key: FLAT[key] for key in moved} | {
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    }
    return tree


def read(tree, directory):
    (directory / "config.json").write_text(json.dumps(tree))
    return read_model(directory).config


@pytest.mark.parametrize("tree", [FLAT, nested()], ids=["flat", "nested"])
def test_both_layouts_are_the_3b(tree, tmp_path):
    config = read(tree, tmp_path)
    assert config.text == TextConfig(
        vocab_size=151936,
        hidden_size=2048,
        num_layers=36,
        num_heads=16,
        num_kv_heads=2,
        head_dim=128,
        intermediate_size=11008,
        mrope_section=(16, 24, 24),
    )
    assert config.vision == VisionConfig(32, 1280, 16, 3420, 2048, (7, 15, 23, 31))
    assert config.vision.patch_dim == 1176
    assert config.vision.window_patches == 64
    assert config.tokens == TokenIds(151643, 151645, 151652, 151653, 151655, 151656)
    assert read(to_hf_config(config), tmp_path) == config
    assert vision_layout(config).window_patches == 64


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model_type": "qwen2_vl"}, "only 'qwen2_5_vl' is supported"),
        ({"use_sliding_window": True}, "sliding"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"vocab_size": None}, "vocab_size"),
        ({"num_attention_heads": 12}, "head"),
        ({"vision_config": FLAT["vision_config"] | {"window_size": 100}}, "window_size must be a multiple"),
        ({"vision_config": FLAT["vision_config"] | {"fullatt_block_indexes": [40]}}, "existing vision blocks"),
        ({"vision_config": FLAT["vision_config"] | {"out_hidden_size": 1024}}, "merger"),
    ],
)
def test_what_is_not_supported_is_refused(change, sentence, tmp_path):
    tree = {key: value for key, value in (FLAT | change).items() if value is not None}
    with pytest.raises(ConfigError, match=sentence):
        read(tree, tmp_path)


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(ConfigError, match=r"has no config\.json"):
        read_model(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="not valid JSON"):
        read_model(tmp_path)
