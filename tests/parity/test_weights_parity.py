"""Names, shapes and bits of the weights against transformers: export, loading, and the trees of the real models."""

import json
import logging
import warnings

import jax
import numpy as np
import pytest
import torch
from pair import OPTIONS, torch_state
from safetensors.numpy import load_file
from transformers import AutoTokenizer, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessorPil
from transformers.utils import logging as hf_logging

from infimmr_jax.config import MeshSection
from infimmr_jax.model.config import read_config
from infimmr_jax.model.hf import load_params, save_params
from infimmr_jax.model.hf_table import hub_name, hub_tensors, leaf_paths, transformers_name
from infimmr_jax.model.options import ModelOptions
from infimmr_jax.model.qwen2_5_vl import abstract_params
from infimmr_jax.parallel.mesh import make_mesh

pytestmark = pytest.mark.parity


def load_silently(directory):
    """The torch model of a directory; any warning or log line of transformers fails."""
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    hf_logging.get_logger("transformers").addHandler(handler)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, report = Qwen2_5_VLForConditionalGeneration.from_pretrained(
            directory, dtype="auto", output_loading_info=True
        )
        Qwen2VLImageProcessorPil.from_pretrained(directory)
        AutoTokenizer.from_pretrained(directory)
    hf_logging.get_logger("transformers").removeHandler(handler)
    assert not lines
    assert not any(report.values())
    return model


@pytest.mark.parametrize("which", ["tied", "untied"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_export_loads_in_transformers_bit_for_bit(which, dtype, request, tmp_path):
    pair = request.getfixturevalue(which)
    save_params(pair.params, pair.config, tmp_path / "m", pair.tokenizer, dtype, max_shard_bytes=200_000)
    loaded = load_silently(tmp_path / "m")
    state = loaded.state_dict()
    wanted = {
        n: torch.from_numpy(v).to(getattr(torch, dtype)) for n, v in torch_state(pair.params, pair.config).items()
    }
    if pair.config.text.tie_word_embeddings:
        wanted["lm_head.weight"] = wanted["model.language_model.embed_tokens.weight"]
    assert set(state) == set(wanted)
    for name, value in wanted.items():
        assert state[name].dtype == value.dtype
        assert torch.equal(state[name], value), name
    assert loaded.generation_config.eos_token_id[0] == pair.config.tokens.eos


@pytest.mark.parametrize("which", ["tied", "untied"])
@pytest.mark.parametrize("names", ["hub", "transformers"])
def test_what_transformers_saves_is_loaded(which, names, request, tmp_path):
    """`save_pretrained` writes hub names and the new config layout; the in-memory names are the other scheme."""
    pair = request.getfixturevalue(which)
    pair.torch_model.save_pretrained(tmp_path, max_shard_size="200KB")
    if names == "transformers":
        index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
        from safetensors.numpy import save_file

        for file in set(index["weight_map"].values()):
            tensors = load_file(tmp_path / file)
            save_file({transformers_name(name): value for name, value in tensors.items()}, tmp_path / file)
    assert "text_config" in json.loads((tmp_path / "config.json").read_text())
    config = read_config(tmp_path)
    assert config == pair.config
    params = load_params(tmp_path, config, OPTIONS, make_mesh(MeshSection(), jax.devices()[:1]))
    for (path, ours), (_, theirs) in zip(leaf_paths(params), leaf_paths(pair.params), strict=True):
        assert np.array_equal(np.asarray(ours), theirs), path


REAL = {
    "3B": (
        {"hidden_size": 2048, "num_hidden_layers": 36, "num_attention_heads": 16, "num_key_value_heads": 2},
        {"intermediate_size": 11008, "vocab_size": 151936, "tie_word_embeddings": True},
        (3_754_622_976, 668_684_288, 824),
    ),
    "7B": (
        {"hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4},
        {"intermediate_size": 18944, "vocab_size": 152064, "tie_word_embeddings": False},
        (8_292_166_656, 676_550_144, 729),
    ),
}


@pytest.mark.parametrize("size", REAL)
def test_the_real_trees_match_the_models_on_the_meta_device(size, tmp_path):
    widths, rest, (parameters, visual_parameters, tensors) = REAL[size]
    tree = {
        "model_type": "qwen2_5_vl",
        **widths,
        **rest,
        "rope_theta": 1e6,
        "rms_norm_eps": 1e-6,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "hidden_act": "silu",
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "vision_start_token_id": 151652,
        "vision_end_token_id": 151653,
        "image_token_id": 151655,
        "video_token_id": 151656,
        "vision_config": {
            "depth": 32,
            "hidden_act": "silu",
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "in_chans": 3,
            "out_hidden_size": widths["hidden_size"],
            "patch_size": 14,
            "spatial_merge_size": 2,
            "spatial_patch_size": 14,
            "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31],
            "tokens_per_second": 2,
            "temporal_patch_size": 2,
        },
    }
    (tmp_path / "config.json").write_text(json.dumps(tree))
    config = read_config(tmp_path)
    with torch.device("meta"):
        theirs = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig.from_pretrained(tmp_path))
    shapes = {hub_name(name): tuple(p.shape) for name, p in theirs.named_parameters()}
    ours = {tensor.name: tensor.shape for tensor in hub_tensors(config)}
    assert ours == shapes
    leaves = dict(leaf_paths(abstract_params(config, ModelOptions())))
    assert sum(leaf.size for leaf in leaves.values()) == parameters
    assert sum(leaf.size for path, leaf in leaves.items() if path[0] == "visual") == visual_parameters
    assert len(ours) == tensors
