"""Cosines and sines of every kind of rotary scaling against transformers' own rotary embedding."""

import dataclasses

import numpy as np
import pytest
from transformers import Qwen2_5_VLConfig

from infimmr_jax.model.config import to_hf_config
from infimmr_jax.model.presets import PRESETS
from infimmr_jax.model.rope import decoder_rope
from infimmr_jax.model.rope_scaling import LinearScaling, Llama3Scaling, YarnScaling

torch = pytest.importorskip("torch", reason="parity needs the test extra")
pytestmark = pytest.mark.parity

SCALINGS = {
    "none": None,
    "linear": LinearScaling(4.0),
    "yarn": YarnScaling(4.0, 32_768),
    "yarn, other ramp": YarnScaling(3.0, 4096, beta_fast=16.0, beta_slow=2.0, truncate=False),
    "yarn, own attention factor": YarnScaling(4.0, 32_768, attention_factor=1.25),
    "yarn, mscale": YarnScaling(40.0, 4096, mscale=0.707, mscale_all_dim=0.9),
    "yarn, short context": YarnScaling(4.0, 64),
    "llama3": Llama3Scaling(8.0, 1.0, 4.0, 8192),
}


@pytest.mark.parametrize("name", SCALINGS)
def test_cosines_and_sines_are_those_of_transformers(name):
    model = PRESETS["qwen2.5-vl-3b"]
    model = dataclasses.replace(model, text=dataclasses.replace(model.text, rope_scaling=SCALINGS[name]))
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLRotaryEmbedding

    theirs = Qwen2_5_VLRotaryEmbedding(Qwen2_5_VLConfig.from_dict(to_hf_config(model)).text_config)
    positions = np.random.default_rng(0).integers(0, 3000, (2, 50, 3))
    expected = theirs(torch.zeros(1), torch.from_numpy(positions).permute(2, 0, 1))
    ours = decoder_rope(positions, model.text)
    for one, other in zip(ours, expected, strict=True):
        # An angle of thousands of radians carries float32's rounding of the frequency.
        np.testing.assert_allclose(np.asarray(one), other.numpy(), atol=2e-3 if name != "none" else 1e-3)
    near = decoder_rope(positions % 64, model.text)
    expected = theirs(torch.zeros(1), torch.from_numpy(positions % 64).permute(2, 0, 1))
    for one, other in zip(near, expected, strict=True):
        np.testing.assert_allclose(np.asarray(one), other.numpy(), atol=5e-5)
