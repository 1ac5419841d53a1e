"""Names, shapes and bits of the weights against transformers: export, loading, and the trees of the real models."""

import json
import logging
import warnings

import jax
import numpy as np
import pytest
import torch
from pair import torch_state
from safetensors.numpy import load_file
from transformers import AutoTokenizer, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessorPil
from transformers.utils import logging as hf_logging

from infimmr_jax.config import MeshSection
from infimmr_jax.model.family import read_model
from infimmr_jax.model.hf import load_params, save_params
from infimmr_jax.model.hf_table import hub_name, leaf_paths, transformers_name
from infimmr_jax.model.presets import check_preset
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
    save_params(pair.params, pair.model, tmp_path / "m", pair.tokenizer, dtype, max_shard_bytes=200_000)
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
    model = read_model(tmp_path)
    assert model == pair.model
    params = load_params(tmp_path, model, make_mesh(MeshSection(), jax.devices()[:1]))
    for (path, ours), (_, theirs) in zip(leaf_paths(params), leaf_paths(pair.params), strict=True):
        assert np.array_equal(np.asarray(ours), theirs), path


# width, layers, heads, key/value heads, feed-forward width, vocabulary, tied, the tower's feed-forward width; then
# parameters, those of the tower, tensors.
REAL = {
    "3b": ((2048, 36, 16, 2, 11008, 151936, True, 3420), (3_754_622_976, 668_684_288, 824)),
    "7b": ((3584, 28, 28, 4, 18944, 152064, False, 3420), (8_292_166_656, 676_550_144, 729)),
    "32b": ((5120, 64, 40, 8, 27648, 152064, False, 3456), (33_452_718_336, 688_841_984, 1161)),
    "72b": ((8192, 80, 64, 8, 29568, 152064, False, 3456), (73_410_777_344, 704_573_696, 1353)),
}


@pytest.mark.parametrize("size", REAL)
def test_the_real_trees_match_the_models_on_the_meta_device(size, tmp_path):
    (width, layers, heads, kv_heads, hidden, vocabulary, tied, visual_hidden), counted = REAL[size]
    tree = {
        "model_type": "qwen2_5_vl",
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": hidden,
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
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
            "intermediate_size": visual_hidden,
            "num_heads": 16,
            "in_chans": 3,
            "out_hidden_size": width,
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
    model = read_model(tmp_path)
    check_preset(model.config, f"qwen2.5-vl-{size}", str(tmp_path))
    with torch.device("meta"):
        theirs = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig.from_pretrained(tmp_path))
    shapes = {hub_name(name): tuple(p.shape) for name, p in theirs.named_parameters()}
    ours = {tensor.name: tensor.shape for tensor in model.tensors()}
    assert ours == shapes
    leaves = dict(leaf_paths(model.abstract_params()))
    visual = sum(leaf.size for path, leaf in leaves.items() if path[0] == "visual")
    assert (sum(leaf.size for leaf in leaves.values()), visual, len(ours)) == counted
