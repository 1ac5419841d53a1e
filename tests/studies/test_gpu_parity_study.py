"""The study that compares with torch on a GPU, run whole at a small size on this CPU."""

import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="parity needs the test extra")

from studies import gpu_parity


def test_the_study_measures_parity_and_speed(tmp_path: Path) -> None:
    out = tmp_path / "parity.json"
    options = (
        "--shape small --dtype float32 --prompts 2 --prompt-tokens 64 --image-size 112 --repeats 1 --peak-tflops 1"
    )
    found = gpu_parity.main([*options.split(), "--out", str(out)])
    assert found["prompt_tokens"] in (62, 63)
    assert json.loads(out.read_text()) == found
    ours = found["to_torch_float32"]["ours"]
    assert ours["largest"] < 1e-4
    assert ours["same_first_token"] == 1
    assert found["to_torch_float32"]["torch"]["largest"] == 0
    for side in ("ours", "torch"):
        speed = found["prefill"][side]
        assert speed["tokens_per_second"] == pytest.approx(2 * found["prompt_tokens"] / speed["seconds"], rel=1e-2)
        assert 0 < speed["mfu"] < 1
