"""The 3B update and sampler, compiled by the real TPU compiler for described chips, on a machine without any.

v5e with two compactions of the default six, v5p and v6e without: further token loops take most of the compiler's time
and never the most memory.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from infimmr_jax.plan.chips import GIB

pytestmark = [
    pytest.mark.topology,
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu (Linux on x86-64)"),
]
CONFIGS = Path(__file__).parents[2] / "configs"


def compiled(folder, machine, topology, *more):
    """The plan of the 3B configuration for a topology."""
    out = folder / "plan.json"
    files = (CONFIGS / "infimmr_3b.yaml", CONFIGS / "machines" / machine)
    options = [option for file in files for option in ("-c", str(file))]
    command = [sys.executable, "-m", "infimmr_jax.cli", "plan", *options, "--topology", topology, "--no-search", *more]
    done = subprocess.run(
        [*command, "--json", str(out)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "160"},
    )
    assert out.exists(), done.stderr[-3000:]
    return json.loads(out.read_text())


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    return compiled(tmp_path_factory.mktemp("plan"), "3b_v5e-16.yaml", "v5e:4x4", "--set", "rollout.compactions=2")


def program(plan, name):
    return next(program for program in plan["programs"] if program["name"] == name)


def test_the_3b_model_fits_16_v5e_chips(plan):
    assert plan["method"] == "compiler"
    assert plan["failures"] == {}
    assert plan["fits"]
    for name in ("sampler", "update"):
        assert 0 < program(plan, name)["peak"] < 15.75 * GIB


@pytest.mark.release
@pytest.mark.parametrize(
    ("machine", "topology", "usable"), [("3b_v5p-8.yaml", "v5p:2x2x2", 94.75), ("3b_v6e-8.yaml", "v6e:2x4", 31.25)]
)
def test_the_3b_model_fits_8_larger_chips(tmp_path, machine, topology, usable):
    found = compiled(tmp_path, machine, topology, "--set", "rollout.compactions=0")
    assert found["method"] == "compiler"
    assert found["failures"] == {}
    for name in ("sampler", "update"):
        assert 0 < program(found, name)["peak"] < usable * GIB


def test_attention_is_made_by_kernels(plan):
    """Vision, trunk and branch: forward, again for the gradient, and two backward, each on every chip for its rows."""
    assert program(plan, "update")["kernels"] >= 3 * 3
    assert program(plan, "sampler")["kernels"] >= 2


def test_weights_cross_the_links_once_a_layer_and_logits_never(plan):
    update = program(plan, "update")
    # Gathered in bfloat16 forward, again for the gradient, and reduced once, for each of 16 micro-batches; a sum over
    # the tensor axis after each of two projections. Ten times as much when the head is gathered with every chunk.
    assert update["sent"] < 1.5e12
    head = next(part for part in update["parts"] if part["name"] == "head")
    assert head["sent"] < 100e9


def test_work_is_shared_evenly(plan):
    """FLOPs of one chip are the model's by formula over the number of chips: nothing is computed twice but by remat."""
    tokens = 128 * 8 * 2048 + 128 * 2048
    layers = 36 * (2048 * 128 * (2 * 16 + 2 * 2) + 3 * 2048 * 11_008)
    matrices = 4 * 2 * layers * tokens / 16
    found = sum(part["flops"] for part in program(plan, "update")["parts"] if part["name"] in ("trunk", "branch"))
    assert matrices < found < 1.6 * matrices
