"""Published sizes: parameter counts, and refusal of a directory of another size."""

import dataclasses
import math
from pathlib import Path

import jax
import pytest

from infimmr_jax.config import ConfigError, parse_config
from infimmr_jax.model.config import config_from_hf, to_hf_config
from infimmr_jax.model.family import preset_model
from infimmr_jax.model.presets import PRESETS, check_preset
from infimmr_jax.plan.abstract import planned_model

# 3B and 7B: counted in the published checkpoints; 32B and 72B: by the architecture (their names round them).
COUNTS = {
    "qwen2.5-vl-3b": 3_754_622_976,
    "qwen2.5-vl-7b": 8_292_166_656,
    "qwen2.5-vl-32b": 33_452_718_336,
    "qwen2.5-vl-72b": 73_410_777_344,
}


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_are_as_many_as_published(name):
    tree = preset_model(name).abstract_params()
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree)) == COUNTS[name]


def test_a_directory_of_another_size_is_refused():
    three = PRESETS["qwen2.5-vl-3b"]
    check_preset(config_from_hf(to_hf_config(three), Path("config.json")), "qwen2.5-vl-3b", "models/a")
    with pytest.raises(ConfigError, match=r"models/b is not the qwen2.5-vl-7b .* its text vocab_size is 151936, not"):
        check_preset(three, "qwen2.5-vl-7b", "models/b")
    odd = dataclasses.replace(three, vision=dataclasses.replace(three.vision, depth=8, fullatt_block_indexes=(7,)))
    with pytest.raises(ConfigError, match="its vision depth is 8, not 32"):
        check_preset(odd, "qwen2.5-vl-3b", "models/c")


def test_a_preset_is_a_shape_and_takes_no_other():
    phases = [{"name": "a", "modality": "text", "steps": 1, "sources": [{"reader": "jsonl", "path": "a"}]}]
    model = {"preset": "qwen2.5-vl-3b", "shape": {"hidden_size": 48}}
    with pytest.raises(ConfigError, match="give either `preset`"):
        parse_config({"phases": phases, "model": model})
    with pytest.raises(ConfigError, match="preset"):
        parse_config({"phases": phases, "model": {"preset": "qwen2.5-vl-4b"}})
    config = parse_config({"phases": phases, "model": {"preset": "qwen2.5-vl-7b"}})
    model = planned_model(config)
    assert model.config == PRESETS["qwen2.5-vl-7b"]
    assert model.options.scan


def test_a_directory_that_is_not_here_needs_a_preset():
    phases = [{"name": "a", "modality": "text", "steps": 1, "sources": [{"reader": "jsonl", "path": "a"}]}]
    with pytest.raises(ConfigError, match="models/none is not here; to plan without the weights, name the size"):
        planned_model(parse_config({"phases": phases, "model": {"path": "models/none"}}))
