"""Architectures read from config.json in the published (flat) and today's (nested) layout, and written back."""

import json
from pathlib import Path

import pytest

from infimmr_jax.config import ConfigError
from infimmr_jax.model.config import TextConfig, TokenIds, VisionConfig, to_hf_config, vision_layout
from infimmr_jax.model.family import read_model
from infimmr_jax.model.rope_scaling import LinearScaling, Llama3Scaling, YarnScaling

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
        ({"vocab_size": "many"}, "vocab_size is 'many'; expected a whole number from 1 to"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000; expected a whole number from 1 to 1,000"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps is nan"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings is 'yes'; expected true or false"),
        ({"image_token_id": 10**6}, "image_token_id is 1000000; the embedding table has the rows 0 to 151935"),
        ({"vocab_size": 384, "eos_token_id": 5, "bos_token_id": 5}, "vision_start_token_id is 151652"),
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping 50.0 is not supported"),
        ({"attention_dropout": 0.1}, "attention_dropout 0.1 is not supported"),
        ({"layer_types": ["sliding_attention"] * 36}, "layer_types has 'sliding_attention'"),
        ({"layer_types": ["full_attention"]}, "1 entries for 36 layers"),
        ({"head_dim": 64}, "16 heads of 64 numbers are not hidden_size 2048"),
        ({"router_scale": 2}, "has the key router_scale, unknown to this program"),
        ({f"k{n}": 0 for n in range(7)}, "has the keys k0, k1, k2, k3, k4 and 2 more, unknown"),
        ({"vision_config": FLAT["vision_config"] | {"mystery": 1}}, "vision_config has the key mystery"),
        ({"vision_config": FLAT["vision_config"] | {"spatial_patch_size": 16}}, "does not agree with 14"),
        ({"vision_config": FLAT["vision_config"] | {"in_chans": 3, "in_channels": 4}}, "in_chans is 3"),
        ({"vision_config": 7}, "vision_config is 7; expected an object"),
        ({"auto_map": {"AutoModel": "code.Model"}}, "names code of this directory"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantised by awq, which are not read; give the directory"),
        (
            {"rope_scaling": {"type": "dynamic", "factor": 2}},
            "kind dynamic is not computed .it changes with the length",
        ),
        ({"rope_scaling": {"rope_type": "su"}}, "kind su is not computed; only linear, yarn, llama3 are"),
        ({"rope_scaling": {"type": "yarn", "mrope_section": [16, 24, 24]}}, "factor is None; expected a number"),
        ({"rope_scaling": {"type": "linear", "factor": 2, "beta_fast": 3}}, "kind linear. has the key beta_fast"),
        ({"rope_scaling": {"type": "mrope", "partial_rotary_factor": 0.5}}, "partial_rotary_factor is 0.5"),
        ({"rope_scaling": {"type": "yarn", "rope_type": "linear"}}, "say linear and yarn"),
        ({"text_config": {"hidden_size": 1024}}, "hidden_size is 2048 beside a text_config that says 1024"),
        ({"num_attention_heads": 12}, "head"),
        ({"vision_config": FLAT["vision_config"] | {"window_size": 100}}, "window_size must be a multiple"),
        ({"vision_config": FLAT["vision_config"] | {"fullatt_block_indexes": 7}}, "fullatt_block_indexes is 7"),
        ({"vision_config": FLAT["vision_config"] | {"out_hidden_size": 1024}}, "merger"),
    ],
)
def test_what_is_not_supported_is_refused(change, sentence, tmp_path):
    tree = {key: value for key, value in (FLAT | change).items() if value is not None}
    with pytest.raises(ConfigError, match=sentence):
        read(tree, tmp_path)


SAVED = json.loads((Path(__file__).parent / "saved_configs.json").read_text())


@pytest.mark.parametrize("version", SAVED)
@pytest.mark.parametrize("head", ["tied", "untied"])
def test_configs_as_each_transformers_writes_them(version, head, tmp_path):
    """`Qwen2_5_VLConfig(..).to_json_string()` of each release: keys at class defaults are left out by 4.49."""
    config = read(SAVED[version][head], tmp_path)
    assert config.text == TextConfig(64, 48, 2, 4, 2, 12, 40, (2, 2, 2), 1e4, 1e-6, head == "tied", 4096)
    assert config.vision == VisionConfig(2, 32, 2, 24, 48, (1,), tokens_per_second=2.0)
    assert config.tokens == TokenIds(pad=0, eos=2, vision_start=3, vision_end=4, image=6, video=7)
    assert read(to_hf_config(config), tmp_path) == config


def test_keys_that_are_left_out_have_the_class_defaults(tmp_path):
    vision = {"model_type": "qwen2_5_vl", "out_hidden_size": 2048, "spatial_patch_size": 14}
    config = read(FLAT | {"vision_config": vision}, tmp_path)
    assert config.vision == VisionConfig(32, 3584, 16, 3420, 2048, (7, 15, 23, 31), tokens_per_second=4.0)
    least = {"model_type": "qwen2_5_vl", "vision_config": {"out_hidden_size": 8192}, "eos_token_id": None}
    config = read(least, tmp_path)
    assert config.text == TextConfig(
        152064, 8192, 80, 64, 8, 128, 29568, (16, 24, 24), 1e6, 1e-5, False, max_position_embeddings=32768
    )
    assert config.tokens == TokenIds(151645, 151645, 151652, 151653, 151655, 151656)


def test_full_attention_beyond_the_depth_means_nothing(tmp_path):
    vision = FLAT["vision_config"] | {"depth": 2, "fullatt_block_indexes": [7, 15, 23, 31]}
    assert read(FLAT | {"vision_config": vision}, tmp_path).vision.fullatt_block_indexes == ()
    vision |= {"fullatt_block_indexes": [-1, 1, 7]}
    assert read(FLAT | {"vision_config": vision}, tmp_path).vision.fullatt_block_indexes == (1,)


def test_all_ends_of_both_files(tmp_path):
    def ends(config, generation):
        (tmp_path / "generation_config.json").write_text(json.dumps(generation))
        return read(FLAT | config, tmp_path).tokens.ends

    assert ends({}, {}) == (151645,)
    assert ends({}, {"eos_token_id": [151645, 151643]}) == (151645, 151643)
    assert ends({"eos_token_id": 151643}, {"eos_token_id": 151645}) == (151643, 151645)
    assert ends({"eos_token_id": [9, 8]}, {"eos_token_id": None}) == (9, 8)
    assert ends({"eos_token_id": None}, {"eos_token_id": 7}) == (7,)
    with pytest.raises(ConfigError, match=r"generation_config\.json: eos_token_id is \[151645, 200000\]; the"):
        ends({}, {"eos_token_id": [151645, 200000]})
    with pytest.raises(ConfigError, match=r"eos_token_id is \['end'\]; expected a list"):
        ends({}, {"eos_token_id": "end"})


SCALINGS = {
    "linear": (LinearScaling(4.0), {"factor": 4}),
    "yarn": (YarnScaling(4.0, 32000), {"factor": 4.0, "original_max_position_embeddings": 32000}),
    "llama3": (
        Llama3Scaling(8.0, 1.0, 4.0, 8192),
        {
            "factor": 8,
            "low_freq_factor": 1,
            "high_freq_factor": 4,
            "original_max_position_embeddings": 8192,
        },
    ),
}


@pytest.mark.parametrize("kind", SCALINGS)
def test_rotary_scaling_is_read_and_kept(kind, tmp_path):
    scaling, keys = SCALINGS[kind]
    for name in ("type", "rope_type"):
        tree = FLAT | {"rope_scaling": {name: kind, "mrope_section": [16, 24, 24], **keys}}
        config = read(tree, tmp_path)
        assert config.text.rope_scaling == scaling
        assert read(to_hf_config(config), tmp_path) == config
    new = nested()
    new["text_config"]["rope_parameters"] |= {"rope_type": kind, **keys}
    assert read(new, tmp_path) == config


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(ConfigError, match=r"has no config\.json"):
        read_model(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="not valid JSON"):
        read_model(tmp_path)
