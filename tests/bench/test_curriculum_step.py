"""The bench of a whole run: one JSON object, with totals that add up and phases that do not vanish."""

import json
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from infimmr_jax import cli
from infimmr_jax.bench import curriculum_step
from infimmr_jax.bench.counts import token_flops
from infimmr_jax.config import load_config
from infimmr_jax.model.config import TokenIds, config_from_shape
from infimmr_jax.model.family import Model
from infimmr_jax.training import evaluate, loop

COLD = {"kind": "sft", "phase": "cold", "phase_index": 0, "tokens_per_second": 100.0}
GRPO = {"kind": "grpo", "phase": "only", "phase_index": 0, "rollout/tokens": 50.0, "rollout/efficiency": 0.5}
ROWS = [
    {**COLD, "time/step": 9.0, "compile/count": 3},
    {**COLD, "time/step": 8.0, "compile/count": 4},
    {**GRPO, "time/step": 7.0, "compile/count": 6},
    {**GRPO, "time/step": 2.0, "compile/count": 6},
    {**GRPO, "time/step": 4.0, "compile/count": 6},
]
LIMITS = {"matmul_gflop_per_second": 10.0}


@pytest.fixture
def path(tmp_path):
    tree = yaml.safe_load(Path("configs/nano.yaml").read_text(encoding="utf-8"))
    tree["phases"] = [{**tree["phases"][0], "grpo": {"updates_per_batch": 2}}]
    tree["checkpoint"] = {"directory": str(tmp_path / "somebody")}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree))
    return tmp_path / "run.yaml"


@pytest.fixture
def model(path):
    settings = load_config(path)
    return config_from_shape(settings.model.shape, 512, TokenIds(0, 1, 2, 3, 4, 5))


def test_phases_keep_their_row_where_every_step_compiled(path, model):
    found = curriculum_step.phases(ROWS, load_config(path), model, 1.0)
    cold, only = found["cold"], found["only"]
    assert (cold["steps"], cold["measured_steps"], cold["compiling"], cold["time/step"]) == (2, 2, True, 8.5)
    assert (only["steps"], only["measured_steps"], only["compiling"], only["time/step"]) == (3, 2, False, 3.0)
    assert only["rollout/efficiency"] == 0.5
    # Sampled once, and forward and backward in each of two passes.
    assert only["response_gflop"] == pytest.approx(7 * token_flops(model, 50) / 1e9, abs=1e-3)
    assert only["response_gflop_per_second"] == pytest.approx(only["response_gflop"] / 3.0, abs=0.01)
    assert cold["response_gflop"] == pytest.approx(3 * token_flops(model, 850) / 1e9, abs=1e-3)
    assert only["share_of_matmul_rate_at_least"] == pytest.approx(only["response_gflop_per_second"], abs=0.01)


def test_totals_add_up():
    found = curriculum_step.totals([*ROWS[:-1], {**ROWS[-1], "time/heldout": 0.5}], [{"time/evaluation": 2.5}], 40.0)
    assert found == {
        "total_seconds": 40.0,
        "cold_start_seconds": 17.0,
        "grpo_seconds": 13.0,
        "evaluation_seconds": 3.0,
        "rest_seconds": 7.0,
    }


def test_what_the_run_says_goes_to_stderr_and_nothing_of_a_real_run_is_touched(path, model, monkeypatch):
    runs = []

    def train(settings):
        print("phase 1: 3 steps")
        runs.append(settings)
        settings.output.mkdir(parents=True)
        (settings.output / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        return [evaluate.heldout_numbers(SimpleNamespace(), np.zeros(1), None, None, "text", [])]

    def asked(*_):
        time.sleep(0.2)
        return np.ones(7), []

    monkeypatch.setattr(loop, "train", train)
    monkeypatch.setattr(evaluate, "_evaluate", asked)
    monkeypatch.setattr(curriculum_step, "ceilings_of", lambda *_: LIMITS)
    monkeypatch.setattr(curriculum_step, "read_model", lambda _: Model(model))
    done = CliRunner().invoke(cli.app, ["bench", "curriculum", "--config", str(path), "--set", "seed=7"])
    assert done.exception is None
    found = json.loads(done.stdout)
    assert "phase 1: 3 steps" in done.stderr
    assert set(found["phases"]) == {"cold", "only"}
    assert 0.2 <= found["totals"]["evaluation_seconds"] < 5
    assert found["ceilings"] == LIMITS
    assert runs[0].seed == 7
    assert runs[0].checkpoint.directory is None
    assert not runs[0].logging.tensorboard
